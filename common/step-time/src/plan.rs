//! The inputs of a prediction.

use crate::Error;
use crate::machine::{Device, Links};
use crate::policy::Policy;

/// A run and the machines that it uses. All devices are equal.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The policy.
    pub policy: Policy,
    /// Prompts of a step.
    pub prompts_per_step: u64,
    /// Completions of each prompt.
    pub group_size: u64,
    /// Length of prompts, in tokens.
    pub prompt_tokens: u64,
    /// Length of completions, in tokens.
    pub completion_tokens: u64,
    /// Prompts of a lease.
    pub prompts_per_lease: u64,
    /// Maximum number of prompt tokens that a worker computes at once.
    pub prefill_tokens: u64,
    /// Whether workers sample from weights with the adapter's changes.
    pub merged: bool,
    /// Rollout workers.
    pub workers: u64,
    /// Learner ranks.
    pub ranks: u64,
    /// Whether workers and ranks use the same devices, so that sampling and training alternate.
    pub shared: bool,
    /// Maximum age of a group in versions; 0: synchronous mode.
    pub max_policy_lag: u64,
    /// Groups of a micro-batch.
    pub groups_per_micro_batch: u64,
    /// Whether layers are recomputed in the backward pass.
    pub recompute_layers: bool,
    /// Whether the objective compares with a reference.
    pub reference: bool,
    /// Optimizer passes over a step.
    pub passes: u64,
    /// Whether the optimizer's state is sharded over the ranks.
    pub sharded: bool,
    /// Steps between checkpoints.
    pub checkpoint_every_steps: u64,
    /// Hosts that download each version from the coordinator; 0 if all processes run on the coordinator's host.
    pub worker_hosts: u64,
    /// Length of a version divided by that of its delta; `None` without deltas.
    pub delta_ratio: Option<f64>,
    /// Rates of each device.
    pub device: Device,
    /// Bandwidths between devices, processes and files.
    pub links: Links,
    /// US dollars per device and hour.
    pub price: f64,
}

impl Plan {
    /// A synchronous run of one worker and one rank on one device with the run file's defaults.
    pub fn new(policy: Policy, device: Device, links: Links) -> Self {
        Self {
            policy,
            prompts_per_step: 32,
            group_size: 8,
            prompt_tokens: 512,
            completion_tokens: 128,
            prompts_per_lease: 8,
            prefill_tokens: 16_384,
            merged: false,
            workers: 1,
            ranks: 1,
            shared: true,
            max_policy_lag: 0,
            groups_per_micro_batch: 8,
            recompute_layers: false,
            reference: false,
            passes: 1,
            sharded: false,
            checkpoint_every_steps: 20,
            worker_hosts: 0,
            delta_ratio: None,
            device,
            links,
            price: 0.0,
        }
    }

    /// Checks that the run computes something and that all rates are positive.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let numbers = [
            ("the number of prompts per step", self.prompts_per_step),
            ("the group size", self.group_size),
            ("the length of prompts", self.prompt_tokens),
            ("the length of completions", self.completion_tokens),
            ("the number of prompts per lease", self.prompts_per_lease),
            ("the number of rollout workers", self.workers),
            ("the number of learner ranks", self.ranks),
            ("the number of groups per micro-batch", self.groups_per_micro_batch),
            ("the number of passes over a step", self.passes),
            ("the number of steps between checkpoints", self.checkpoint_every_steps),
        ];
        if let Some((what, _)) = numbers.into_iter().find(|(_, number)| *number == 0) {
            return Err(Error::Zero { what });
        }
        self.device.check()?;
        self.links.check()
    }

    /// Number of devices.
    pub fn devices(&self) -> u64 {
        if self.shared { self.workers.max(self.ranks) } else { self.workers + self.ranks }
    }

    /// Whether workers sample while the learner trains.
    pub(crate) fn overlaps(&self) -> bool {
        self.max_policy_lag > 0 && !self.shared
    }

    /// Completions whose grading the learner waits for: those of the last lease, or in synchronous mode of the last leases
    /// of all workers, which end together. The others are graded while workers sample.
    pub(crate) fn last_completions(&self) -> u64 {
        if self.overlaps() {
            return self.lanes();
        }
        let before = (self.blocks().div_ceil(self.workers) - 1) * self.workers;
        (self.blocks() - before) * self.lanes()
    }

    /// Leases of a step.
    pub(crate) fn blocks(&self) -> u64 {
        self.prompts_per_step.div_ceil(self.prompts_per_lease)
    }
}
