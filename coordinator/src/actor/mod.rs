//! The coordinator as an actor: one task owns the run, and everything else talks to it through a [`Handle`].
//!
//! The [`crate::machine::sequencer`] stores what has to be durable before the machine takes it and a caller gets a reply.
//! Grading, prompts and the files of policies are the callers' work. Closing a step or an evaluation is a job on a thread of
//! its own: the actor serves leases, heartbeats and submissions meanwhile, and parks the commands that depend on the job.

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
