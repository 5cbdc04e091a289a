//! The endpoint's key: read from the environment, sent in one header, and never shown.

use std::fmt;

use reqwest::header::HeaderValue;

/// Replacement for the key in texts.
const HIDDEN: &str = "[key]";
/// Minimum length of a key that is hidden; shorter ones are placeholders such as `EMPTY`, which may occur in any text.
const SHORTEST_HIDDEN_BYTES: usize = 12;

/// A key that is not printed. Empty if the endpoint requires none.
#[derive(Clone, Default)]
pub(crate) struct Secret(String);

impl Secret {
    /// Reads an environment variable and trims white space.
    pub(crate) fn from_environment(variable: &str) -> Self {
        // A key that is not UTF-8 becomes an invalid header value, whose error names the key.
        let value = std::env::var_os(variable).unwrap_or_default();
        Self(value.to_string_lossy().trim().to_owned())
    }

    /// Returns the value of the authorization header; `None` without a key.
    pub(crate) fn header(&self) -> Option<Result<HeaderValue, reqwest::header::InvalidHeaderValue>> {
        (!self.0.is_empty()).then(|| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0))?;
            value.set_sensitive(true);
            Ok(value)
        })
    }

    /// Replaces the key in `text`; some endpoints quote it in their errors.
    pub(crate) fn hide(&self, text: &str) -> String {
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
