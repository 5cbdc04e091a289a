//! The recommender's side of Podium: data sets, candidate lists, prompts, completions, rewards and ranking metrics.
//!
//! Everything here is a function of its arguments and of the files it is pointed at. Random choices come from
//! [`podium_grpo::rng`] and are named by what they are for, so nothing depends on the order of calls. The crate knows
//! nothing of networks, clocks, threads or libtorch.
//!
//! [`task::Task`] is the way in: it turns users into prompts and completions into scores, and it is the only path that
//! supervised fine-tuning, rollouts and evaluation take, so the three cannot drift apart.

pub mod candidates;
pub mod completion;
pub mod dataset;
pub mod demonstration;
pub mod diagnostics;
mod ids;
pub mod mixed;
pub mod prompt;
pub mod ranking;
pub mod reward;
pub mod synthetic;
pub mod task;
pub mod watch;

pub use dataset::{Catalogue, Dataset, Item, User};
pub use ids::{ItemId, UserId};
pub use task::Task;
