//! The coordinator of a run. It owns the data order, leases prompts to workers, checks and scores their
//! results, and stores every group until a checkpoint covers it. It sends learner ranks their shares, stores
//! policy versions, schedules evaluations and reports the status of the run.
//!
//! [`machine`] contains the rules without I/O, and the order in which data is stored. [`actor`] runs it, and
//! [`service`] implements gRPC. [`store`], [`policies`] and [`reports`] are the run's files. The coordinator
//! does not link libtorch and computes no model.

// Printing macros panic if the output is closed: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod actor;
mod announcement;
pub mod curriculum;
pub mod discovery;
pub mod dropping;
pub mod external;
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
pub mod timeline;
