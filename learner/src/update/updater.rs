//! A policy in training: the state that steps depend on.

use std::collections::BTreeMap;
use std::path::Path;

use podium_config::RunFile;
use podium_files::durable;
use podium_grpo::Step;
use podium_model::Policy;
use tch::{Device, Tensor, no_grad};

use crate::collective::{self, Collective};
use crate::memory::MicroBatches;
use crate::optimizer::Optimizer;
use crate::reference::Reference;
use crate::schedule::{Course, Schedule};

/// A policy in training.
#[derive(Debug)]
pub struct Updater {
    pub(super) policy: Policy,
    /// Set if the objective has a KL term.
    pub(super) reference: Option<Reference>,
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) micro_batches: MicroBatches,
    pub(super) next: Step,
    pub(super) file: RunFile,
    /// Floating point operations of the last step.
    pub(super) flops: u64,
}

impl Updater {
    /// Creates the updater of version 0, before the first step of a run.
    pub fn new(mut policy: Policy, file: &RunFile) -> Self {
        let reference = Reference::of(&policy, &file.grpo);
        policy.set_training(true);
        let passes = file.run.steps.saturating_mul(u64::from(file.grpo.num_iterations));
        Self {
            reference,
            optimizer: Optimizer::new(&policy, file),
            schedule: Schedule {
                peak: file.learner.learning_rate,
                warmup_steps: file.learner.warmup_steps,
                course: Course::of(file.learner.lr_scheduler_type, passes),
            },
            micro_batches: MicroBatches::of(file.learner.groups_per_micro_batch),
            next: Step(0),
            file: file.clone(),
            flops: 0,
            policy,
        }
    }

    /// Records the sizes of micro-batches at `path`, and repeats those that are recorded there.
    pub fn record_micro_batches(mut self, path: &Path) -> Result<Self, durable::Error> {
        self.micro_batches = self.micro_batches.recorded(path)?;
        Ok(self)
    }

    /// Returns the current policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the floating point operations of the model in the last step of this rank, without recomputation.
    pub const fn flops(&self) -> u64 {
        self.flops
    }

    /// Returns the next step.
    pub const fn next_step(&self) -> Step {
        self.next
    }

    /// Returns whether the weights are still those of version 0.
    pub fn is_at_start(&self) -> bool {
        self.optimizer.steps() == 0
    }

    /// Returns whether the last started step is fully applied, or has changed nothing yet.
    pub fn is_between_steps(&self) -> bool {
        self.optimizer.steps() == self.next.0 * u64::from(self.file.grpo.num_iterations)
    }

    /// Returns whether the optimizer's state is sharded over the ranks.
    pub const fn is_sharded(&self) -> bool {
        matches!(self.optimizer, Optimizer::Sharded(_))
    }

    /// Returns all state that the next step depends on, by name: on rank 0, or on every rank if it is not sharded. The
    /// tensors of a replicated optimizer share memory with the policy's and the optimizer's. Every rank must call it.
    pub fn state(&self, collective: &mut dyn Collective) -> Result<Vec<(String, Tensor)>, collective::Error> {
        match &self.optimizer {
            Optimizer::Replicated(adamw) => {
                let reference = self.reference.iter().flat_map(Reference::state);
                Ok(adamw.state().into_iter().chain(reference).collect())
            }
            // The run file excludes a reference with a state of its own.
            Optimizer::Sharded(zero) => zero.gather(collective),
        }
    }

    /// Returns the names and shapes of [`Self::state`] on rank 0.
    pub fn shapes(&self) -> Vec<(String, Vec<i64>)> {
        match &self.optimizer {
            Optimizer::Replicated(adamw) => {
                let reference = self.reference.iter().flat_map(Reference::state);
                adamw
                    .state()
                    .into_iter()
                    .chain(reference)
                    .map(|(name, tensor)| (name, tensor.size()))
                    .collect()
            }
            Optimizer::Sharded(zero) => zero.shapes(),
        }
    }

    /// Starts in a rank group from rank 0's state before step `next`: `saved`, with the names and shapes of
    /// [`Self::shapes`], or, without one, the present state of a replicated optimizer or the policy's weights. Every rank
    /// must call it.
    pub fn join(
        &mut self,
        next: Step,
        saved: Option<&BTreeMap<String, Tensor>>,
        collective: &mut dyn Collective,
    ) -> Result<(), collective::Error> {
        let steps = next.0 * u64::from(self.file.grpo.num_iterations);
        match &mut self.optimizer {
            Optimizer::Replicated(adamw) => {
                let reference = self.reference.iter().flat_map(Reference::state);
                let state: Vec<(String, Tensor)> = adamw.state().into_iter().chain(reference).collect();
                if let Some(saved) = saved {
                    no_grad(|| {
                        for (name, tensor) in &state {
                            tensor.shallow_clone().copy_(&saved[name]);
                        }
                    });
                }
                if collective.world_size() > 1 {
                    for (_, tensor) in &state {
                        collective.broadcast(&mut tensor.view(-1))?;
                    }
                }
                adamw.restored(steps);
            }
            Optimizer::Sharded(zero) => {
                zero.join(saved, collective)?;
                zero.restored(steps);
            }
        }
        self.reference.iter_mut().for_each(Reference::restored);
        self.next = next;
        Ok(())
    }

    /// Returns what `use_policy` returns of the policy with the weights of a saved state. Afterwards the policy has its own
    /// weights again.
    pub fn with_weights<T>(
        &self,
        saved: &BTreeMap<String, Tensor>,
        use_policy: impl FnOnce(&Policy) -> T,
    ) -> T {
        let entry = |name: &str| format!("weight.{name}");
        let assign = |weights: &BTreeMap<String, Tensor>| {
            for (name, parameter) in self.policy.trainable() {
                no_grad(|| parameter.detach().copy_(&weights[&entry(name)]));
            }
        };
        let copy = |(name, parameter): &(String, Tensor)| {
            (entry(name), no_grad(|| parameter.detach().to_device(Device::Cpu).copy()))
        };
        let own = self.policy.trainable().iter().map(copy).collect();
        assign(saved);
        let result = use_policy(&self.policy);
        assign(&own);
        result
    }
}
