//! GRPO without a tensor library: what a group is, what its advantages are, what the objective says in `f64`, and where
//! random numbers come from.
//!
//! Everything here is a pure function of its arguments. The crate knows nothing of networks, files, clocks or libtorch;
//! the learner's libtorch loss follows the same [`plan`] and is tested against [`objective`].

pub mod advantage;
pub mod figures;
pub mod group;
pub mod ids;
pub mod objective;
pub mod options;
pub mod plan;
pub mod recorded;
pub mod rng;

pub use group::{Completion, FinishReason, Group, GroupRewards, RankCredit};
pub use ids::{GroupId, PolicyVersion, Step};
pub use options::Options;
