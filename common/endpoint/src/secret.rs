//! The endpoint's key: read from the environment or a file, sent in one header, and never shown.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use reqwest::header::HeaderValue;

/// Replacement for the key in texts.
const HIDDEN: &str = "[key]";
/// Minimum length of a key that is hidden; shorter ones are placeholders such as `EMPTY`, which may occur in any text.
const SHORTEST_HIDDEN_BYTES: usize = 12;

/// Longest file that is read, in bytes.
const LONGEST_FILE_BYTES: u64 = 64 << 10;

/// A key that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the key in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The variable or the file has no key.
    #[error("{0} is empty: expected a key")]
    Empty(String),
    /// The key is too short to be hidden.
    #[error(
        "the key in {0} is too short to be hidden in messages: expected at least {SHORTEST_HIDDEN_BYTES} bytes"
    )]
    Short(String),
}

/// A key that is not printed. Empty if the endpoint requires none.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Reads an environment variable and trims white space.
    pub fn from_environment(variable: &str) -> Self {
        // A key that is not UTF-8 becomes an invalid header value, whose error names the key.
        let value = std::env::var_os(variable).unwrap_or_default();
        Self(value.to_string_lossy().trim().to_owned())
    }

    /// Reads a key that must be there, and long enough to be hidden, from an environment variable.
    pub fn required_in(variable: &str) -> Result<Self, SecretError> {
        Self::from_environment(variable).required(format!("the environment variable {variable}"))
    }

    /// Reads a key that must be there, and long enough to be hidden, from a file, and trims white space.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let mut text = Vec::new();
        let read =
            std::fs::File::open(path).and_then(|file| file.take(LONGEST_FILE_BYTES).read_to_end(&mut text));
        read.map_err(|source| SecretError::File { path: path.to_owned(), source })?;
        Self(String::from_utf8_lossy(&text).trim().to_owned()).required(path.display().to_string())
    }

    fn required(self, origin: String) -> Result<Self, SecretError> {
        match self.0.len() {
            0 => Err(SecretError::Empty(origin)),
            1..SHORTEST_HIDDEN_BYTES => Err(SecretError::Short(origin)),
            _ => Ok(self),
        }
    }

    /// Returns the value of the authorization header; `None` without a key.
    pub fn header(&self) -> Option<Result<HeaderValue, reqwest::header::InvalidHeaderValue>> {
        (!self.0.is_empty()).then(|| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0))?;
            value.set_sensitive(true);
            Ok(value)
        })
    }

    /// Replaces the key in `text`; some endpoints quote it in their errors.
    pub fn hide(&self, text: &str) -> String {
        if self.0.len() < SHORTEST_HIDDEN_BYTES { text.to_owned() } else { text.replace(&self.0, HIDDEN) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "no key" } else { HIDDEN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_key_is_read_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(Secret::read(&path), Err(SecretError::File { .. })));
        std::fs::write(&path, " \n").unwrap();
        assert!(Secret::read(&path).unwrap_err().to_string().contains("is empty: expected a key"));
        std::fs::write(&path, "sk-short\n").unwrap();
        let short = Secret::read(&path).unwrap_err().to_string();
        assert!(short.contains("expected at least 12 bytes") && !short.contains("sk-short"), "{short}");
        std::fs::write(&path, "sk-very-secret\n").unwrap();
        assert_eq!(Secret::read(&path).unwrap().0, "sk-very-secret");
        let unset = Secret::required_in("PODIUM_TEST_NO_SUCH_KEY").unwrap_err().to_string();
        assert!(unset.contains("PODIUM_TEST_NO_SUCH_KEY"), "{unset}");
    }

    #[test]
    fn a_key_is_not_shown() {
        let secret = Secret("sk-very-secret".to_owned());
        assert_eq!(format!("{secret:?}"), "[key]");
        assert_eq!(secret.hide("wrong key sk-very-secret!"), "wrong key [key]!");
        assert!(!format!("{:?}", secret.header()).contains("very"));
        assert!(Secret::default().header().is_none());
        for word in ["", "1", "EMPTY"] {
            assert_eq!(Secret(word.to_owned()).hide("EMPTY text 1"), "EMPTY text 1");
        }
    }
}
