//! The recommender part of Podium: data sets, candidate lists, prompts, completions, rewards and ranking metrics.
//!
//! All functions depend only on their arguments and on the files given to them. Random choices use streams of
//! [`podium_grpo::rng`] named by their purpose, so that results do not depend on the order of calls. The crate does not
//! use the network, clocks, threads or libtorch.
//!
//! [`task::Task`] is the entry point: it turns users into prompts and completions into scores. Supervised fine-tuning,
//! rollouts and evaluation all use it, so that their prompts and parsing are identical.

pub mod candidates;
pub mod completion;
pub mod dataset;
pub mod demonstration;
pub mod diagnostics;
mod ids;
pub mod mixed;
pub mod prompt;
pub mod ranking;
pub mod requests;
pub mod reward;
pub mod synthetic;
pub mod task;
pub mod watch;

pub use dataset::{Catalogue, Dataset, Item, User};
pub use ids::{ItemId, UserId};
pub use task::Task;
