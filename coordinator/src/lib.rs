//! The coordinator of a run: owns the data order, leases prompts to workers, checks and scores what comes back, keeps
//! every group until a checkpoint covers it, hands learner ranks their shares, stores policy versions, schedules
//! evaluation and answers questions about the run.
//!
//! [`machine`] holds the rules and does nothing; [`actor`] does what it says; [`service`] speaks gRPC; [`store`],
//! [`policies`] and [`reports`] are the run's files. There is no libtorch here, and nothing is computed with a model.

// Printing macros panic where the output is gone: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod actor;
mod announcement;
pub mod curriculum;
pub mod discovery;
pub mod dropping;
pub mod grading;
pub mod identity;
pub mod machine;
pub mod metrics;
pub mod policies;
pub mod reports;
pub mod results;
pub mod run;
pub mod scaling;
pub mod service;
pub mod store;
