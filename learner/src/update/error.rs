//! Errors of a step.

use super::unusable::{Unusable, first_cause};
use crate::{adamw, batch, collective};

/// The reasons why a step is not applied. The weights are unchanged; but of a step with several passes, earlier ones
/// may have been applied: then only [`Updater::join`](super::Updater::join) restores a consistent state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The share is inconsistent.
    #[error("the groups of step {step} are inconsistent")]
    Share {
        /// The step.
        step: u64,
        /// The cause.
        source: batch::Error,
    },
    /// The share is of another step than the optimizer's next.
    #[error("received groups of step {found}: expected step {expected}")]
    Step {
        /// Step of the groups.
        found: u64,
        /// Next step of the optimizer.
        expected: u64,
    },
    /// Groups do not fit the policy.
    #[error("cannot train on the groups of step {step}")]
    Batch {
        /// The step.
        step: u64,
        /// The cause.
        source: podium_model::packed::Error,
    },
    /// Groups of the step cannot be trained on; nothing has changed. Every rank gets this error, each with its own groups.
    #[error("{} of this rank's groups of step {step} cannot be trained on{}", groups.len(), first_cause(groups))]
    Unusable {
        /// The step.
        step: u64,
        /// The groups of this rank.
        groups: Vec<Unusable>,
    },
    /// The rank group is broken.
    #[error(transparent)]
    Collective(#[from] collective::Error),
    /// The step does not fit into the device's memory.
    #[error(
        "step {step} does not fit into the memory of the device with {groups} groups at once ({reason}): set \
         learner.recompute_layers, lower learner.groups_per_micro_batch, or sample shorter completions or fewer a prompt"
    )]
    Memory {
        /// The step.
        step: u64,
        /// The pass over it, from 0.
        pass: u32,
        /// Number of groups per micro-batch.
        groups: usize,
        /// libtorch's message.
        reason: String,
    },
    /// The optimizer does not fit into the device's memory. Weights may be partly changed.
    #[error(
        "the optimizer's step {step} does not fit into the memory of the device ({reason}): set learner.zero_stage = 1 with \
         several ranks, train an adapter (lora.rank), or leave more memory to this process (launch.colocate)"
    )]
    OptimizerMemory {
        /// The step.
        step: u64,
        /// libtorch's message.
        reason: String,
    },
    /// The size of micro-batches cannot be recorded.
    #[error(transparent)]
    Record(#[from] podium_files::durable::Error),
    /// The gradient is not finite.
    #[error("cannot take step {step}")]
    Optimizer {
        /// The step.
        step: u64,
        /// The cause.
        source: adamw::Error,
    },
}
