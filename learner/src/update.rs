//! One step of GRPO: forward and backward of micro-batches, gradients summed over the ranks, clipped, applied;
//! repeated `grpo.num_iterations` times.
//!
//! Groups include behaviour log-probabilities; their distance from the recomputed ones is a metric of every step.

use std::collections::BTreeMap;
use std::time::Instant;

use podium_config::RunFile;
use podium_grpo::figures::Figures;
use podium_grpo::plan::StepSize;
use podium_grpo::{Group, Step};
use podium_model::{Entropy, GroupTokens, Packed, Policy, TrainingOptions};
use tch::Tensor;

use crate::adamw::{self, AdamW};
use crate::batch::{self, MicroBatch, Share};
use crate::collective::{self, Collective};
use crate::gradients;
use crate::loss::{Objective, OnDevice, Tokens, objective};
use crate::reference::Reference;
use crate::schedule::{Course, Schedule};
use crate::{lora, memory};

mod metrics;
mod unusable;

pub use metrics::of_step;
use unusable::{Gaps, first_cause};
pub use unusable::{Unusable, agree};

/// Metrics of a step or of one pass, under TRL's names.
pub type Metrics = BTreeMap<String, f64>;

/// The reasons why a step is not applied. The weights are unchanged; but of a step with several passes, earlier ones
/// may have been applied: then only [`Updater::restored`] restores a consistent state.
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
    /// The gradient is not finite.
    #[error("cannot take step {step}")]
    Optimizer {
        /// The step.
        step: u64,
        /// The cause.
        source: adamw::Error,
    },
}

/// A policy in training.
#[derive(Debug)]
pub struct Updater {
    policy: Policy,
    /// Set if the objective has a KL term.
    reference: Option<Reference>,
    optimizer: AdamW,
    schedule: Schedule,
    micro_batch: memory::MicroBatch,
    next: Step,
    file: RunFile,
}

/// A micro-batch during the passes of a step.
struct InHand<'a> {
    batch: &'a MicroBatch<'a>,
    /// Stored by the first pass for later ones.
    tokens: Option<Tokens>,
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

    /// Trains on one step's groups, together with the other ranks; returns the metrics of each pass.
    pub fn update(&mut self, share: &Share, collective: &mut dyn Collective) -> Result<Vec<Metrics>, Error> {
        let (step, expected) = (share.step.0, self.next.0);
        if step != expected {
            return Err(Error::Step { found: step, expected });
        }
        share.check(&self.file.grpo).map_err(|source| Error::Share { step, source })?;
        let size = self.size(share, collective)?;
        let metrics = loop {
            match (self.passes(share, &size, collective), self.micro_batch.smaller(share.groups.len())) {
                // The first pass has changed nothing yet; later passes depend on values stored with their
                // micro-batches.
                (Err(Error::Memory { pass: 0, groups, reason, .. }), Some(smaller)) => {
                    let fewer = smaller.groups();
                    tracing::warn!(
                        "step {step} does not fit with {groups} groups per micro-batch ({reason}): continuing with {fewer}"
                    );
                    crate::metrics::out_of_memory(fewer);
                    self.micro_batch = smaller;
                }
                (outcome, _) => break outcome?,
            }
        };
        self.next = self.next.next();
        Ok(metrics)
    }

    /// Passes over the step's groups as often as the run file specifies.
    fn passes(
        &mut self,
        share: &Share,
        size: &StepSize,
        collective: &mut dyn Collective,
    ) -> Result<Vec<Metrics>, Error> {
        let batches = share.micro_batches(&self.file.grpo, size, self.micro_batch.groups());
        let mut in_hand: Vec<InHand<'_>> =
            batches.iter().map(|batch| InHand { batch, tokens: None }).collect();
        let passes = 0..self.file.grpo.num_iterations;
        passes.map(|pass| self.pass(pass, share, size, &mut in_hand, collective)).collect()
    }

    /// Returns the size of the step that the share belongs to.
    fn size(&self, share: &Share, collective: &mut dyn Collective) -> Result<StepSize, collective::Error> {
        let options = &self.file.grpo;
        let tokens = if options.mask_truncated_completions {
            let ranks = collective.all_gather(&[share.active_tokens(options) as f64])?;
            ranks.iter().map(|rank| rank[0] as u64).sum()
        } else {
            share.tokens_in_step
        };
        let longest = options.max_completion_length.unwrap_or(self.file.rollout.max_new_tokens);
        Ok(StepSize { completions: share.completions_in_step(), tokens, longest })
    }

    /// Passes once over the step's groups.
    fn pass(
        &mut self,
        pass: u32,
        share: &Share,
        size: &StepSize,
        in_hand: &mut [InHand<'_>],
        collective: &mut dyn Collective,
    ) -> Result<Metrics, Error> {
        let (start, step) = (Instant::now(), share.step.0);
        // Clears gradients of an earlier attempt or pass.
        self.policy.zero_gradients();
        let last = pass + 1 == self.file.grpo.num_iterations;
        let accumulate =
            || in_hand.iter_mut().map(|one| self.accumulate(one, last)).collect::<Result<Vec<_>, _>>();
        let parts = memory::attempt(accumulate).map_err(|memory::UsedUp(reason)| {
            let groups = self.micro_batch.groups().min(share.groups.len());
            Error::Memory { step, pass, groups, reason }
        })?;
        let broken = |source| Error::Batch { step, source };
        let (parts, gaps): (Vec<_>, Vec<_>) = parts.map_err(broken)?.into_iter().unzip();
        let own = OnDevice::total(&parts);
        if pass == 0 {
            let gaps: Vec<Gaps<'_>> = gaps.into_iter().flatten().collect();
            let out_of_bounds = self.out_of_bounds(share.step, &gaps).map_err(broken)?;
            agree(share.step, out_of_bounds, collective)?;
        }

        let mut gradients = gradients::of(&self.policy);
        let figures = if collective.world_size() > 1 {
            gradients = collective.all_reduce_each(&gradients)?;
            let ranks = collective.all_gather(&own.to_numbers())?;
            Figures::total(
                ranks.iter().filter_map(|rank| Some(Figures::from_numbers(rank[..].try_into().ok()?))),
            )
        } else {
            own
        };
        let learning_rate = self.schedule.at(self.optimizer.steps());
        let grad_norm = match self.optimizer.step(&mut gradients, learning_rate) {
            Ok(norm) => norm,
            Err(source) => {
                if pass == 0 {
                    let not_finite = self.not_finite(share, size, collective)?;
                    agree(share.step, not_finite, collective)?;
                }
                return Err(Error::Optimizer { step, source });
            }
        };
        self.move_reference();
        let mut metrics = self.metrics(&figures, pass);
        for (name, value) in [
            ("grad_norm", grad_norm),
            ("learning_rate", learning_rate),
            ("frac_reward_zero_std", share.zero_variance_share()),
            ("learner_seconds", start.elapsed().as_secs_f64()),
        ] {
            metrics.insert(name.to_owned(), value);
        }
        Ok(metrics)
    }

    fn move_reference(&mut self) {
        let options = &self.file.grpo;
        let due = self.optimizer.steps().is_multiple_of(options.ref_model_sync_steps);
        if let Some(reference) = self.reference.as_mut().filter(|_| options.sync_ref_model && due) {
            reference.follow(self.optimizer.weights(), options.ref_model_mixup_alpha);
        }
    }

    /// Adds a micro-batch's gradient to the gradients of the parameters.
    fn accumulate<'a>(
        &self,
        one: &mut InHand<'a>,
        last: bool,
    ) -> Result<(OnDevice, Option<Gaps<'a>>), podium_model::packed::Error> {
        let batch = one.batch;
        #[cfg(test)]
        memory::injected::take(batch.groups.len());
        let packed = packed(&batch.groups)?;
        let (temperature, options) = (self.file.rollout.temperature, &self.file.grpo);
        let mut tokens = if let Some(tokens) = one.tokens.take() {
            tokens
        } else {
            let score =
                |reference: &Reference| reference.policy().score(&packed, temperature, Entropy::Skipped);
            let reference = self.reference.as_ref().map(score).transpose()?;
            Tokens::new(batch, reference.map(|scores| scores.logprobs).as_ref(), self.policy.device())
        };
        let (figures, gap) = if batch.moves {
            let entropy =
                if options.entropy_coef == 0.0 { Entropy::Measured } else { Entropy::Differentiable };
            let pass = TrainingOptions {
                temperature,
                entropy,
                recompute_layers: self.file.learner.recompute_layers,
                dropout: Some(lora::dropout(&self.file, self.optimizer.steps())),
            };
            let pass = self.policy.training_pass(&packed, pass)?;
            let scores = pass.scores();
            let Objective { loss, figures, gap } =
                objective(&scores.logprobs, scores.entropy.as_ref(), &mut tokens, options);
            loss.backward();
            pass.backward();
            (figures, gap)
        } else {
            let scores = self.policy.score(&packed, temperature, Entropy::Measured)?;
            let Objective { figures, gap, .. } =
                objective(&scores.logprobs, scores.entropy.as_ref(), &mut tokens, options);
            (figures, gap)
        };
        if !last {
            one.tokens = Some(tokens);
        }
        Ok((figures, gap.map(|gap| Gaps::new(&batch.groups, &gap))))
    }
}

/// Packs the groups as one batch, with the set of tokens that each token was sampled from.
fn packed(groups: &[&Group]) -> Result<Packed, podium_model::packed::Error> {
    let packed = Packed::new(&groups.iter().map(|group| tokens(group)).collect::<Vec<_>>())?;
    let completions = groups.iter().flat_map(|group| &group.completions).enumerate();
    packed.restricted(completions.flat_map(|(index, completion)| {
        let allowed = completion.allowed.iter();
        allowed.map(move |allowed| (index, allowed.position as usize, &*allowed.token_ids))
    }))
}

fn tokens(group: &Group) -> GroupTokens<'_> {
    let completions = group.completions.iter().map(|completion| completion.token_ids.as_slice()).collect();
    GroupTokens { prompt: &group.prompt_ids, completions }
}

#[cfg(test)]
mod tests;
