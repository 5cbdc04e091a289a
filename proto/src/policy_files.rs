//! Rules for the files of a policy version on their way between processes.

use crate::convert::Error;

/// The most data one chunk carries, in bytes.
pub const MAX_CHUNK_BYTES: usize = 1 << 20;

/// Accepts a plain file name: no directory, not hidden, at most 128 ASCII letters, digits, `.`, `_` and `-`.
pub fn check_file_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.chars().all(plain) {
        let shown: String = name.chars().take(128).collect();
        return Err(Error::invalid("PolicyFile.name", &format!("{shown:?}"), "a plain file name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        for good in ["config.json", "model-00001-of-00002.safetensors", "chat_template.jinja"] {
            check_file_name(good).unwrap();
        }
        let long = "x".repeat(129);
        for bad in ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", "ü.json", &long] {
            check_file_name(bad).unwrap_err();
        }
    }
}
