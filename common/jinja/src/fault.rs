//! Errors of reading and rendering a template.

/// An error of reading or rendering a template, with its line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Error {
    /// Line of the template, from 1.
    pub line: usize,
    /// The cause.
    pub message: String,
}

/// An error whose line may not be known yet.
#[derive(Debug)]
pub(crate) struct Fault {
    line: Option<usize>,
    message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// Sets the line unless it is set: the innermost expression determines it.
    pub(crate) fn at(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }

    pub(crate) fn public(self) -> Error {
        Error { line: self.line.unwrap_or(1), message: self.message }
    }
}

/// An error that Python raises as well.
pub(crate) fn fault(message: impl Into<String>) -> Fault {
    Fault { line: None, message: message.into() }
}

/// An error for a feature that Python supports and Podium does not.
pub(crate) fn unsupported(what: impl std::fmt::Display) -> Fault {
    fault(format!("{what} is not supported by Podium"))
}
