//! The optimizer of a rank: with all of its state on every rank, or with a shard on each.

mod error;

use podium_config::RunFile;
use podium_model::Policy;
use tch::Tensor;

use crate::adamw::AdamW;
use crate::collective::Collective;
use crate::zero::Zero;

pub use error::Error;

/// The optimizer of a policy's trainable parameters.
#[derive(Debug)]
pub(crate) enum Optimizer {
    /// Every rank applies the same step to all parameters.
    Replicated(AdamW),
    /// Every rank applies the step to its shard (`learner.zero_stage = 1`).
    Sharded(Zero),
}

impl Optimizer {
    pub(crate) fn new(policy: &Policy, file: &RunFile) -> Self {
        let options = (&file.learner).into();
        if file.learner.zero_stage == 0 {
            Self::Replicated(AdamW::new(policy.trainable(), options))
        } else {
            Self::Sharded(Zero::new(policy.trainable(), options))
        }
    }

    /// Number of applied steps.
    pub(crate) fn steps(&self) -> u64 {
        match self {
            Self::Replicated(adamw) => adamw.steps(),
            Self::Sharded(zero) => zero.steps(),
        }
    }

    /// Sums the gradients of all ranks, one per parameter in the parameters' order, and applies one step along the sum.
    /// Returns its norm before clipping.
    pub(crate) fn step(
        &mut self,
        mut gradients: Vec<Tensor>,
        learning_rate: f64,
        collective: &mut dyn Collective,
    ) -> Result<f64, Error> {
        match self {
            Self::Replicated(adamw) => {
                if collective.world_size() > 1 {
                    gradients = collective.all_reduce_each(gradients)?;
                }
                Ok(adamw.step(&mut gradients, learning_rate)?)
            }
            Self::Sharded(zero) => zero.step(gradients, learning_rate, collective),
        }
    }
}
