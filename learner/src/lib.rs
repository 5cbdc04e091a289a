//! Podium's learner: trains policy versions on scored groups, and an initial policy on demonstrations.
//!
//! The tensors of a run live on one device thread ([`update`]). [`train`] drives it and communicates with the
//! coordinator ([`session`]) and the other ranks ([`collective`]). A step's result is a function of its groups, the
//! weights and the optimizer's state alone. This crate neither samples nor scores.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod adamw;
pub mod batch;
pub mod checkpoint;
pub mod collective;
mod load;
pub mod lora;
pub mod loss;
mod memory;
pub mod merge;
pub mod metrics;
pub mod optimizer;
pub mod rank;
pub mod reference;
pub mod replay;
pub mod schedule;
pub mod score;
pub mod selfcheck;
pub mod session;
pub mod sft;
#[cfg(test)]
pub(crate) mod testing;
pub mod train;
pub mod update;
mod zero;
