//! Errors of a session and of its items.

use crate::endpoint::{self, SetupError};
use crate::leak;
use crate::pictures;
use crate::reasoning::Modality;
use crate::store;

/// An error while starting a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The endpoint cannot be used.
    #[error("--endpoint cannot be used")]
    Endpoint(#[from] SetupError),
    /// The store of replies cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Signal handlers cannot be installed.
    #[error("cannot install signal handlers")]
    Signal(#[source] std::io::Error),
}

/// Reason why an item failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command was interrupted before the item's turn.
    #[error("interrupted")]
    Interrupted,
    /// The endpoint rejects all requests.
    #[error("the endpoint rejects every request")]
    Refused(#[source] endpoint::Error),
    /// The endpoint did not answer this request.
    #[error("no reply in {attempts} attempts")]
    Endpoint {
        /// Number of attempts.
        attempts: u32,
        /// The last error.
        source: endpoint::Error,
    },
    /// The model declined, or the endpoint withheld its answer.
    #[error("the model declined to answer: {reason}")]
    Declined {
        /// The reason given.
        reason: String,
    },
    /// All tokens were used for reasoning.
    #[error(
        "the reply was cut off before its answer began, of {max_tokens} tokens at most: raise --max-tokens, or turn the \
         model's thinking off with --body"
    )]
    NoRoom {
        /// Maximum length of a reply; 0 is the endpoint's limit.
        max_tokens: u64,
    },
    /// All answers violated the rules.
    #[error("{answers} answers violated the rules, the last one because {reason}")]
    Rules {
        /// Number of answers.
        answers: u32,
        /// The violated rule, as reported to the model.
        reason: String,
    },
    /// The store of replies failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A picture cannot be read.
    #[error(transparent)]
    Picture(#[from] pictures::Error),
    /// The history has no pictures or captions.
    #[error("there are no {0} of the items in the history")]
    NothingToShow(Modality),
    /// The request would reveal the target.
    #[error(transparent)]
    Leak(#[from] leak::Error),
}

impl Failure {
    /// Whether all other items will fail as well.
    pub(super) const fn is_final_for_all(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Store(_))
    }
}
