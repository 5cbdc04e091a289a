//! An evaluation of policies: which parts it consists of, and what their answers come to.
//!
//! A part is one evaluation by the services of a run: one policy, one number of negatives, one draw of candidate lists,
//! in the order drawn or reversed. Its answers are kept under a name that says all they depend on, so that a part is
//! never asked twice and never taken for another. Figures are computed anew from the answers each time.

// Printing macros panic where the output is gone: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod checksums;
mod comparisons;
mod error;
mod figure;
mod figures;
mod key;
mod listing;
mod plan;
mod probes;
mod ranked;
pub mod results;
pub mod run_tables;
mod tables;

pub use error::Error;
pub use figure::Figure;
pub use figures::{Evaluation, Table};
pub use listing::{csv, lists};
pub use plan::{Asked, Part, Plan, Policy, Programs};
pub use ranked::Ranking;
pub use tables::tables;
