//! Why a template cannot be read or rendered.

/// Why a template cannot be read or rendered, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Error {
    /// Line of the template, from 1.
    pub line: usize,
    /// The cause.
    pub message: String,
}

/// A cause that may not have met its line yet.
#[derive(Debug)]
pub(crate) struct Fault {
    line: Option<usize>,
    message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// With a line, unless there is one already: the innermost expression names it.
    pub(crate) fn at(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }

    pub(crate) fn public(self) -> Error {
        Error { line: self.line.unwrap_or(1), message: self.message }
    }
}

/// What Python would raise.
pub(crate) fn fault(message: impl Into<String>) -> Fault {
    Fault { line: None, message: message.into() }
}

/// What Python would go on with and Podium does not.
pub(crate) fn unsupported(what: impl std::fmt::Display) -> Fault {
    fault(format!("{what} is not supported by Podium"))
}
