//! Errors of values in configuration files.

use std::fmt::Display;

/// A configuration value that is invalid or unsupported.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// The value requires an unsupported feature.
    #[error("{what} is {found}, which is not supported (supported: {supported})")]
    Unsupported {
        /// The key in the file.
        what: String,
        /// Its value.
        found: String,
        /// The supported values.
        supported: &'static str,
    },
    /// The value is invalid.
    #[error("{what} is {found}, expected {expected}")]
    Invalid {
        /// The key in the file.
        what: String,
        /// Its value.
        found: String,
        /// The accepted values.
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

/// Returns the beginning of a value, short enough for a message.
fn beginning(value: impl Display) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(100) {
        text.truncate(end);
        text.push('…');
    }
    text
}
