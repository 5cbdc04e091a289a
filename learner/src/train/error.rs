//! The failures of training, and which of them can be retried.

use podium_files::durable;
use podium_model::device_thread;
use podium_proto::v1;
use podium_transfer::{connection, fetch, manifest};

use crate::collective::{self, choice, star};
use crate::{adamw, rank, session, update};

/// The reasons why training ends before the run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator did not answer, or refused.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The policy of version 0 could not be downloaded.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// A policy folder cannot be described.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The session with the coordinator failed.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The rank failed.
    #[error(transparent)]
    Rank(#[from] rank::Error),
    /// The device thread failed.
    #[error(transparent)]
    Device(#[from] device_thread::Error),
    /// The device thread cannot be started.
    #[error("cannot start the device thread: {source}")]
    Thread {
        /// The cause.
        source: std::io::Error,
    },
    /// A file cannot be written or read.
    #[error(transparent)]
    File(#[from] durable::Error),
    /// The ranks did not connect.
    #[error(transparent)]
    Connect(#[from] star::ConnectError),
    /// The advertised address is invalid.
    #[error("--collective-advertise: {0}")]
    Advertise(#[from] podium_service::advertise::Error),
    /// The ranks connected but cannot set up a collective.
    #[error(transparent)]
    Collective(#[from] collective::Error),
    /// The collective of the run file is unavailable.
    #[error(transparent)]
    Choice(#[from] choice::Error),
}

impl Error {
    /// Whether this process is shutting down.
    pub(super) fn is_stop(&self) -> bool {
        match self {
            Self::Connection(error) => error.kind() == connection::Kind::Stopped,
            Self::Fetch(error) => error.kind() == fetch::Kind::Connection(connection::Kind::Stopped),
            Self::Session(error) => error.is_stop(),
            _ => false,
        }
    }

    /// Whether a new rendezvous may resolve the error.
    pub(super) fn may_be_resolved_by_rendezvous(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Collective(_) => true,
            Self::Rank(error) => error.is_collective(),
            Self::Session(error) => error.is_unknown_rank(),
            // Another process has become this rank and published or offered a version.
            Self::Connection(error) => error.kind() == connection::Kind::NotFound,
            _ => false,
        }
    }

    /// Classification for users.
    pub(super) const fn failure(&self) -> v1::Failure {
        match self {
            Self::Rank(rank::Error::Update(update::Error::Optimizer {
                source: adamw::Error::NotFinite { .. },
                ..
            })) => v1::Failure::NotFinite,
            Self::Rank(rank::Error::Update(
                update::Error::Memory { .. } | update::Error::OptimizerMemory { .. },
            )) => v1::Failure::OutOfMemory,
            Self::Rank(rank::Error::Collective(_))
            | Self::Connect(_)
            | Self::Collective(_)
            | Self::Choice(_) => v1::Failure::Collective,
            _ => v1::Failure::Unspecified,
        }
    }
}
