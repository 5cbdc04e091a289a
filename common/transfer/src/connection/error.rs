//! The reasons why a call to the coordinator failed.

use std::time::Duration;

use tonic::{Code, Status};

use crate::secret;

/// The reasons why a call to the coordinator failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is invalid.
    #[error("the coordinator's address is {address:?}: expected host:port")]
    Address {
        /// The given address.
        address: String,
    },
    /// The coordinator refused the call; a retry would not help.
    #[error("the coordinator at {address} refused to {what}: {}", status.message())]
    Refused {
        /// The coordinator's address.
        address: String,
        /// The purpose of the call.
        what: &'static str,
        /// The coordinator's answer.
        status: Box<Status>,
    },
    /// This process has no usable secret of the run.
    #[error("cannot {what}")]
    Secret {
        /// The purpose of the call.
        what: &'static str,
        /// The cause.
        source: secret::Error,
    },
    /// The coordinator could not be reached in time.
    #[error("could not {what}: no answer from the coordinator at {address} for {} s (last: {})", waited.as_secs(), last.message())]
    Unreachable {
        /// The coordinator's address.
        address: String,
        /// The purpose of the call.
        what: &'static str,
        /// Duration of the retries.
        waited: Duration,
        /// Result of the last attempt.
        last: Box<Status>,
    },
    /// This process is shutting down.
    #[error("stopped while trying to {what}")]
    Stopped {
        /// The purpose of the call.
        what: &'static str,
    },
}

/// The class of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The address is invalid.
    Address,
    /// The coordinator does not have the requested object (any more).
    NotFound,
    /// The coordinator refused the call for another reason.
    Refused,
    /// This process has no usable secret of the run.
    Secret,
    /// The coordinator could not be reached in time.
    Unreachable,
    /// This process is shutting down.
    Stopped,
}

impl Error {
    /// Returns the class of the error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Address { .. } => Kind::Address,
            Self::Refused { status, .. } if status.code() == Code::NotFound => Kind::NotFound,
            Self::Refused { .. } => Kind::Refused,
            Self::Secret { .. } => Kind::Secret,
            Self::Unreachable { .. } => Kind::Unreachable,
            Self::Stopped { .. } => Kind::Stopped,
        }
    }
}
