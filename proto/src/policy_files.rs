//! Rules for the files of a policy version in transfer.

use crate::convert::Error;

/// Maximum size of a chunk's data, in bytes. Transfers fail if no chunk arrives within the timeout of a call, so that small
/// chunks support slow links.
pub const MAX_CHUNK_BYTES: usize = 1 << 18;

/// The only subfolder of a policy folder whose files belong to the policy: its additional chat templates.
pub const TEMPLATE_FOLDER: &str = "additional_chat_templates";

/// Accepts a plain file name, not hidden, of at most 128 ASCII letters, digits, `.`, `_` and `-`; it may be in
/// [`TEMPLATE_FOLDER`].
pub fn check_file_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let file = name.strip_prefix(TEMPLATE_FOLDER).and_then(|name| name.strip_prefix('/')).unwrap_or(name);
    if file.is_empty() || name.len() > 128 || file.starts_with('.') || !file.chars().all(plain) {
        let shown: String = name.chars().take(128).collect();
        return Err(Error::invalid("PolicyFile.name", &format!("{shown:?}"), "a plain file name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_accepted() {
        for good in [
            "config.json",
            "model-00001-of-00002.safetensors",
            "chat_template.jinja",
            "additional_chat_templates/rag.jinja",
        ] {
            check_file_name(good).unwrap();
        }
        let long = "x".repeat(129);
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "additional_chat_templates/",
            "additional_chat_templates/../b",
            "a\\b",
            "a\0b",
            "ü.json",
            &long,
        ] {
            check_file_name(bad).unwrap_err();
        }
    }
}
