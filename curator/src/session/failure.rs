//! Why a session, or one of its items, came to nothing.

use crate::endpoint::{self, SetupError};
use crate::leak;
use crate::pictures;
use crate::reasoning::Modality;
use crate::store;

/// Why no session can start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The endpoint cannot be used.
    #[error(transparent)]
    Endpoint(#[from] SetupError),
    /// Replies cannot be kept.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Ctrl-C could not end in order.
    #[error("cannot take over signals")]
    Signal(#[source] std::io::Error),
}

/// Why an item came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was not its turn when the command was told to stop.
    #[error("interrupted")]
    Interrupted,
    /// The endpoint will answer nothing.
    #[error("the endpoint refuses every request")]
    Refused(#[source] endpoint::Error),
    /// The endpoint did not answer this.
    #[error("no reply in {attempts} attempts")]
    Endpoint {
        /// How often it was asked.
        attempts: u32,
        /// What went wrong last.
        source: endpoint::Error,
    },
    /// The model declined, or the endpoint withheld its answer.
    #[error("the model declined to answer: {reason}")]
    Declined {
        /// What it said.
        reason: String,
    },
    /// All tokens went into thinking.
    #[error(
        "the reply was cut off before its answer began, of {max_tokens} tokens at most: raise --max-tokens, or turn the \
         model's thinking off with --body"
    )]
    NoRoom {
        /// The longest reply; 0 is the endpoint's own.
        max_tokens: u64,
    },
    /// No answer kept the rules.
    #[error("{answers} answers broke the rules, the last one because {reason}")]
    Rules {
        /// How many there were.
        answers: u32,
        /// What was wrong, in words for the model.
        reason: String,
    },
    /// Replies cannot be kept.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A picture cannot be shown.
    #[error(transparent)]
    Picture(#[from] pictures::Error),
    /// The history says nothing that titles do not.
    #[error("there are no {0} of the items in the history")]
    NothingToShow(Modality),
    /// The request would give the target away.
    #[error(transparent)]
    Leak(#[from] leak::Error),
}

impl Failure {
    /// Whether no other item will fare better.
    pub(super) const fn is_final_for_all(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Store(_))
    }
}
