//! The endpoint's key: it comes from the environment, goes into one header, and is shown nowhere.

use std::fmt;

use reqwest::header::HeaderValue;

/// What stands in place of the key wherever a text would show it.
const HIDDEN: &str = "[key]";
/// A shorter key is a word that stands for one, such as `EMPTY`, and may stand in any text.
const SHORTEST_HIDDEN_BYTES: usize = 12;

/// A key that cannot be printed. Empty where the endpoint needs none.
#[derive(Clone, Default)]
pub(crate) struct Secret(String);

impl Secret {
    /// The value of an environment variable, without white space around it.
    pub(crate) fn from_environment(variable: &str) -> Self {
        // A key that is not UTF-8 becomes one that no header takes, which is an error that names it.
        let value = std::env::var_os(variable).unwrap_or_default();
        Self(value.to_string_lossy().trim().to_owned())
    }

    /// The value of the authorization header; `None` without a key.
    pub(crate) fn header(&self) -> Option<Result<HeaderValue, reqwest::header::InvalidHeaderValue>> {
        (!self.0.is_empty()).then(|| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0))?;
            value.set_sensitive(true);
            Ok(value)
        })
    }

    /// `text` without the key, for what an endpoint sends back: some quote it in their errors.
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
