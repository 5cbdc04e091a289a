//! Errors of calls to the actor.

use std::sync::Arc;
use std::time::Duration;

use podium_files::durable;
use podium_grpo::{GroupId, Step};

use crate::{machine, policies, store};

/// Time limit for a reply of the actor. The actor is fast apart from disk writes.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// The reasons why a call to the actor failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine refuses the call.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A policy version cannot be stored or served.
    #[error(transparent)]
    Policy(#[from] policies::Error),
    /// A prompt cannot be rendered.
    #[error("cannot render the prompts of a step or an evaluation")]
    Task(#[from] podium_recsys::task::Error),
    /// A stored group is invalid.
    #[error("a stored group is invalid")]
    Group(#[from] podium_proto::convert::Error),
    /// A step could not be closed.
    #[error("cannot close {step}")]
    Close {
        /// The step.
        step: Step,
        /// The cause, shared by all calls that waited for the step.
        source: Arc<Self>,
    },
    /// A write failed that stored the results of several calls.
    #[error(transparent)]
    Shared(Arc<Self>),
    /// A slot was sampled again too often.
    #[error(
        "the run ends, since {group} was set aside {times} times: {history}; find out why these workers sample groups that \
         cannot be trained on, then run the same command again"
    )]
    Spent {
        /// The last group of the slot.
        group: GroupId,
        /// Number of times since this process started.
        times: u32,
        /// Workers and causes.
        history: String,
    },
    /// A report file cannot be written.
    #[error(transparent)]
    Report(#[from] durable::Error),
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
    /// The actor did not reply in time.
    #[error("the coordinator did not {what} within {} s: its disk may be too slow", REPLY_TIMEOUT.as_secs())]
    Busy {
        /// The call.
        what: &'static str,
    },
}

/// Runs blocking work on a thread for such work.
pub(crate) async fn blocking<T: Send + 'static, E: From<Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Stopping.into()),
    }
}
