//! Duration and cost of a GRPO step by phase, computed from shapes and from rates of the machine.
//!
//! Each phase takes the larger one of two times: that of its arithmetic and memory traffic, and that of its launches.
//! docs/guides/step-time.md states the formulas, their inputs, and their errors against measured steps.
//!
//! Not counted: evaluation, dynamic sampling, start-up, completions shorter than the given length, waiting for other
//! processes of a busy machine.

mod cards;
mod error;
mod learner;
mod machine;
mod parts;
mod plan;
mod policy;
mod prediction;
mod transfer;
mod worker;

pub use cards::{CARDS, Card, GPUS_PER_HOST};
pub use error::Error;
pub use machine::{Device, Links, Rate};
pub use parts::{Limit, Phase};
pub use plan::Plan;
pub use policy::Policy;
pub use prediction::{Prediction, Side};
pub use transfer::delta_ratio;
