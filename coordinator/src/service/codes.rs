//! The single mapping from errors to gRPC codes.
//!
//! Callers retry after `UNAVAILABLE`, `RESOURCE_EXHAUSTED` and `ABORTED`, register or join again after
//! `NOT_FOUND`, and fail after other codes.

use podium_files::durable;
use podium_service::logs::describe;
use podium_service::plain_text;
use podium_transfer::receive;
use tonic::{Code, Status};

use crate::{actor, identity, machine, policies, store};

/// An error that a caller receives.
pub(super) trait Refusal: std::error::Error + 'static {
    fn code(&self) -> Code;
}

/// Converts an error into a gRPC status, and logs it before it leaves the process.
pub(super) fn refuse(error: &impl Refusal) -> Status {
    let code = error.code();
    crate::metrics::refused(code);
    // It may quote the request.
    let message = plain_text::escaped(&describe(error)).into_owned();
    match code {
        // Ordinary after a restart: the caller registers or joins again.
        Code::NotFound => tracing::info!("refused: {message}"),
        Code::Internal | Code::DataLoss | Code::ResourceExhausted => tracing::error!("failed: {message}"),
        _ => tracing::warn!("refused ({code:?}): {message}"),
    }
    Status::new(code, message)
}

impl Refusal for machine::Error {
    fn code(&self) -> Code {
        match self {
            Self::UnknownWorker { .. } | Self::UnknownLearner { .. } => Code::NotFound,
            Self::Rank { .. } | Self::NotLeader { .. } => Code::InvalidArgument,
            Self::WorldSize { .. }
            | Self::CodeVersion { .. }
            | Self::StepGone { .. }
            | Self::StepAhead { .. }
            | Self::NotSampled { .. }
            | Self::Expelled { .. }
            | Self::StepCommitted { .. }
            | Self::NotPublished { .. }
            | Self::VersionAhead { .. } => Code::FailedPrecondition,
        }
    }
}

impl Refusal for store::Error {
    fn code(&self) -> Code {
        match self {
            Self::Full { .. } => Code::ResourceExhausted,
            Self::Database { .. } => Code::Unavailable,
            Self::Damaged { .. } => Code::DataLoss,
            Self::InUse { .. } | Self::OtherRun { .. } | Self::NoRun { .. } | Self::Format { .. } => {
                Code::FailedPrecondition
            }
        }
    }
}

impl Refusal for durable::Error {
    fn code(&self) -> Code {
        if durable::is_full(self) { Code::ResourceExhausted } else { Code::Unavailable }
    }
}

impl Refusal for receive::Error {
    fn code(&self) -> Code {
        match self.kind() {
            receive::Kind::Unexpected => Code::InvalidArgument,
            // A repeated transfer starts at the position that the coordinator reports, and may be complete.
            receive::Kind::Gap | receive::Kind::Damaged => Code::Aborted,
            receive::Kind::File if durable::is_full(self) => Code::ResourceExhausted,
            receive::Kind::File => Code::Unavailable,
            receive::Kind::Folder => Code::Internal,
        }
    }
}

impl Refusal for policies::Error {
    fn code(&self) -> Code {
        match self {
            // A worker drops the lease; the version is leased again once it can be served.
            Self::NotThere(_)
            | Self::Gone { .. }
            | Self::Unusable { .. }
            | Self::Superseded { .. }
            | Self::NoFile { .. } => Code::NotFound,
            Self::OtherRun { .. } | Self::OtherModel { .. } => Code::FailedPrecondition,
            Self::NotDeterministic { .. } => Code::AlreadyExists,
            Self::Receive(error) => error.code(),
            Self::File(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::NoStart
            | Self::Start { .. }
            | Self::NoWeights { .. }
            | Self::OtherStart { .. }
            | Self::OtherContent { .. }
            | Self::StartGone { .. }
            | Self::Copy { .. }
            | Self::Manifest(_) => Code::Internal,
        }
    }
}

impl Refusal for actor::Error {
    fn code(&self) -> Code {
        match self {
            Self::Machine(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Policy(error) => error.code(),
            Self::Report(error) => error.code(),
            Self::Close { source, .. } | Self::Shared(source) => source.code(),
            Self::Spent { .. } => Code::FailedPrecondition,
            Self::Task(_) | Self::Group(_) => Code::Internal,
            Self::Stopping | Self::Busy { .. } => Code::Unavailable,
        }
    }
}

impl Refusal for identity::Error {
    fn code(&self) -> Code {
        Code::FailedPrecondition
    }
}

impl Refusal for podium_proto::convert::Error {
    fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Converts the error of a result into a gRPC status.
pub(super) trait OrRefuse<T> {
    fn or_refuse(self) -> Result<T, Status>;
}

impl<T, E: Refusal> OrRefuse<T> for Result<T, E> {
    fn or_refuse(self) -> Result<T, Status> {
        self.map_err(|error| refuse(&error))
    }
}
