//! GRPO without a tensor library: groups, advantages, the objective in `f64`, and keyed random numbers.
//!
//! All functions are pure. The crate does not use the network, files, clocks or libtorch. The learner's libtorch loss
//! uses the same [`plan`] and is tested against [`objective`].

pub mod advantage;
pub mod group;
pub mod ids;
pub mod objective;
pub mod options;
pub mod plan;
pub mod recorded;
pub mod rng;
pub mod sampling;
pub mod step_metrics;

pub use group::{Completion, FinishReason, Group, GroupRewards, RankCredit};
pub use ids::{GroupId, PolicyVersion, Step};
pub use options::Options;
pub use sampling::Sampling;
