//! Load test of a coordinator: a real coordinator process, simulated workers and one simulated learner rank.
//!
//! The simulated peers send the requests of the real ones over connections of their own. Completions are made up, and no
//! policy is sampled or trained. The peers run on threads of their own, since the launcher's thread starts processes.

mod completions;
mod coordinator;
mod error;
mod learner;
mod peers;
mod simulate;
mod tally;
mod usage;
mod worker;

pub(crate) use error::Error;
pub(crate) use simulate::{Measured, Plan, measure};
pub(crate) use tally::Latencies;
