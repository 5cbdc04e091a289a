//! Errors of writing a prompt.

use std::path::PathBuf;

use super::shortening::{SHORTEST_TITLE_CHARS, Unit};
use crate::ids::{ItemId, UserId};

/// An error while writing a prompt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The template's file cannot be read.
    #[error("cannot read the prompt template {} (the built-in ones are `words`, `compact` and `ids`)", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The template is not a valid minijinja template.
    #[error("prompt template `{template}` does not parse")]
    Parse {
        /// Its name in the run file.
        template: String,
        /// Position and cause.
        source: minijinja::Error,
    },
    /// Rendering failed, for example because of an undefined variable.
    #[error("prompt template `{template}` does not render")]
    Render {
        /// Its name in the run file.
        template: String,
        /// Position and cause.
        source: minijinja::Error,
    },
    /// An item that is not in the catalogue.
    #[error("{0} is not in the catalogue")]
    UnknownItem(ItemId),
    /// A prompt exceeds the budget after all shortening.
    #[error(
        "the prompt of {user} has {whole} {unit}, and {least} without captions, with one item of history and with titles \
         of at most {} characters: expected at most {limit} (prompt.max_{}); raise the limit, or show fewer candidates \
         (candidates.count)",
        SHORTEST_TITLE_CHARS,
        match unit { Unit::Tokens => "tokens", Unit::Chars => "chars" }
    )]
    TooLong {
        /// The user of the prompt.
        user: UserId,
        /// Its full size.
        whole: usize,
        /// Its minimum size.
        least: usize,
        /// The budget.
        limit: usize,
        /// Unit of the sizes.
        unit: Unit,
    },
    /// `prompt.max_tokens` is set without a tokenizer.
    #[error(
        "prompt.max_tokens requires the policy's tokenizer, which is not available here: use prompt.max_chars instead"
    )]
    NoMeasure,
    /// The tokens of a prompt cannot be counted.
    #[error("cannot count the tokens of the prompt of {user}")]
    Measure {
        /// The user of the prompt.
        user: UserId,
        /// Cause.
        source: Refusal,
    },
    /// The chat template rejects a prompt.
    #[error("cannot render the prompt of {user} with the chat template")]
    End {
        /// The user of the prompt.
        user: UserId,
        /// Cause.
        source: Refusal,
    },
}

/// The class of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The template cannot be read, parsed or rendered.
    Template,
    /// An item is not in the catalogue.
    UnknownItem,
    /// A prompt exceeds the budget after all shortening.
    TooLong,
    /// The policy's tokenizer or chat template is missing, or rejects a prompt.
    Tokenizer,
}

impl Error {
    /// Returns the class of the error.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Read { .. } | Self::Parse { .. } | Self::Render { .. } => Kind::Template,
            Self::UnknownItem(_) => Kind::UnknownItem,
            Self::TooLong { .. } => Kind::TooLong,
            Self::NoMeasure | Self::Measure { .. } | Self::End { .. } => Kind::Tokenizer,
        }
    }
}

/// Error of a tokenizer or chat template for a prompt.
pub type Refusal = Box<dyn std::error::Error + Send + Sync>;
