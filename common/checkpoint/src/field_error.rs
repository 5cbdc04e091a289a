//! Values of configuration keys that cannot be used.

use std::fmt::Display;

/// A value in a configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// It asks for something that is not done here.
    #[error("{what} is {found}, which is not supported (supported: {supported})")]
    Unsupported {
        /// The key in the file.
        what: String,
        /// Its value.
        found: String,
        /// What would be accepted.
        supported: &'static str,
    },
    /// It makes no sense.
    #[error("{what} is {found}, expected {expected}")]
    Invalid {
        /// The key in the file.
        what: String,
        /// Its value.
        found: String,
        /// What would be accepted.
        expected: String,
    },
}

impl FieldError {
    pub(crate) fn unsupported(what: &str, found: impl Display, supported: &'static str) -> Self {
        Self::Unsupported { what: what.to_owned(), found: beginning(found), supported }
    }

    pub(crate) fn invalid(what: &str, found: impl Display, expected: &str) -> Self {
        Self::Invalid { what: what.to_owned(), found: beginning(found), expected: expected.to_owned() }
    }
}

/// As much of a value as a person reads.
fn beginning(value: impl Display) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(100) {
        text.truncate(end);
        text.push('…');
    }
    text
}
