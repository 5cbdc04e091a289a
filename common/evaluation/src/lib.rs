//! An evaluation of policies: its parts, and the metrics of their answers.
//!
//! A part is one evaluation by the services of a run: one policy, one number of negatives, one candidate sample, in
//! sampled or reversed order, or the ranking of the whole catalogue by one policy. Its answers are stored under a name
//! derived from all their inputs, so that a part is never repeated and never confused with another. Metrics are
//! recomputed from the answers each time.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod anatomy;
mod beyond;
pub mod checksums;
mod comparisons;
mod error;
mod evaluation;
pub mod groups;
mod key;
mod listing;
mod lists;
mod metric_value;
mod names;
mod plan;
mod probes;
mod protocol;
mod ranked;
pub mod rankers;
pub mod results;
pub mod run_tables;
mod tables;
pub mod trained;

pub use anatomy::Anatomy;
pub use error::Error;
pub use evaluation::Evaluation;
pub use listing::{csv, lists};
pub use lists::Lists;
pub use metric_value::MetricValue;
pub use plan::{Asked, Part, Plan, Policy, Programs};
pub use protocol::Protocol;
pub use ranked::{Ranking, Table};
pub use tables::tables;
