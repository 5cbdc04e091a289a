//! The coordinator as an actor: one task owns the run, and all other code calls it through a [`Handle`].
//!
//! The [`crate::machine::sequencer`] stores data before the machine accepts it and a caller gets a reply.
//! Submissions that wait for the actor together are stored in one write.
//! Callers do the grading, render prompts, and read and write the files of policies. Closing a step or an
//! evaluation is a job on its own thread: meanwhile the actor serves leases, heartbeats and submissions, and
//! parks the commands that depend on the job.

mod catch_up;
mod clock;
mod closer;
mod closes;
mod command;
mod concerns;
mod environment;
mod error;
mod handle;
mod offences;
mod progress;
mod run_loop;
mod set_aside;
mod state;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod versions;

pub use clock::Clock;
pub use closer::{Closer, FinishedStep, Records};
pub use command::{BatchRequest, Offer, Profile, StepReport, Submission};
pub use error::Error;
pub(crate) use error::blocking;
pub use handle::Handle;
pub use offences::Offender;
pub use run_loop::start;
pub use state::{ExitReason, Parts};
