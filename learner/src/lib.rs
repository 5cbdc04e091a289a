//! Podium's learner: it turns scored groups into policy versions, and demonstrations into a policy to start from.
//!
//! The tensors of a run live on one device thread ([`update`]); around it, [`train`] talks to the coordinator
//! ([`session`]) and to the other ranks ([`collective`]). What a step does is a function of its groups, the weights and
//! the optimizer's state alone. This crate samples nothing and scores nothing.

// Printing macros panic where the output is gone: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod adamw;
pub mod batch;
pub mod checkpoint;
pub mod collective;
pub mod gradients;
pub mod lora;
pub mod loss;
mod memory;
pub mod merge;
pub mod metrics;
pub mod rank;
pub mod reference;
pub mod replay;
pub mod schedule;
pub mod score;
pub mod session;
pub mod sft;
#[cfg(test)]
pub(crate) mod testing;
pub mod train;
pub mod update;
