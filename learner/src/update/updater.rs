//! A policy in training: the state that steps depend on.

use podium_config::RunFile;
use podium_grpo::Step;
use podium_model::Policy;
use tch::Tensor;

use crate::adamw::AdamW;
use crate::memory;
use crate::reference::Reference;
use crate::schedule::{Course, Schedule};

/// A policy in training.
#[derive(Debug)]
pub struct Updater {
    pub(super) policy: Policy,
    /// Set if the objective has a KL term.
    pub(super) reference: Option<Reference>,
    pub(super) optimizer: AdamW,
    pub(super) schedule: Schedule,
    pub(super) micro_batch: memory::MicroBatch,
    pub(super) next: Step,
    pub(super) file: RunFile,
}

impl Updater {
    /// Creates the updater of version 0, before the first step of a run.
    pub fn new(mut policy: Policy, file: &RunFile) -> Self {
        let reference = Reference::of(&policy, &file.grpo);
        policy.set_training(true);
        let passes = file.run.steps.saturating_mul(u64::from(file.grpo.num_iterations));
        Self {
            reference,
            optimizer: AdamW::new(policy.trainable(), (&file.learner).into()),
            schedule: Schedule {
                peak: file.learner.learning_rate,
                warmup_steps: file.learner.warmup_steps,
                course: Course::of(file.learner.lr_scheduler_type, passes),
            },
            micro_batch: memory::MicroBatch::of(file.learner.groups_per_micro_batch),
            next: Step(0),
            file: file.clone(),
            policy,
        }
    }

    /// Returns the current policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the next step.
    pub const fn next_step(&self) -> Step {
        self.next
    }

    /// Returns whether the weights are still those of version 0.
    pub const fn is_at_start(&self) -> bool {
        self.optimizer.steps() == 0
    }

    /// Returns whether the last started step is fully applied, or has changed nothing yet.
    pub fn is_between_steps(&self) -> bool {
        self.optimizer.steps() == self.next.0 * u64::from(self.file.grpo.num_iterations)
    }

    /// Returns all state that the next step depends on, by name; the tensors share memory with the policy's and
    /// optimizer's.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = self.optimizer.state();
        state.extend(self.reference.iter().flat_map(Reference::state));
        state
    }

    /// Completes a restore. Must be called after overwriting the tensors of [`Self::state`] with those before
    /// step `next`.
    pub fn restored(&mut self, next: Step) {
        self.optimizer.restored(next.0 * u64::from(self.file.grpo.num_iterations));
        self.reference.iter_mut().for_each(Reference::restored);
        self.next = next;
    }
}
