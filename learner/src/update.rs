//! One optimizer step of GRPO: micro-batches through the policy, gradients summed over the ranks, clipped, applied.
//!
//! Behaviour log-probabilities come with the groups; how far the recomputed ones are from them is a metric of every step.

use std::collections::BTreeMap;
use std::time::Instant;

use podium_config::RunFile;
use podium_grpo::{Group, Step};
use podium_model::{Entropy, GroupTokens, Packed, Policy, TrainingOptions};
use tch::Tensor;

use crate::adamw::{self, AdamW};
use crate::batch::{self, MicroBatch, Share};
use crate::collective::{self, Collective};
use crate::gradients;
use crate::lora;
use crate::loss::{Figures, Objective, Tokens, Totals, objective};
use crate::schedule::{Course, Schedule};

/// Figures of a step under TRL's names.
pub type Metrics = BTreeMap<String, f64>;

/// Why a step was not taken. The weights are then as they were before it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The share does not hold together.
    #[error("the groups of step {step} do not hold together")]
    Share {
        /// Which step.
        step: u64,
        /// Why.
        source: batch::Error,
    },
    /// The share is of another step than the optimizer's next.
    #[error("groups of step {found} came: expected those of step {expected}")]
    Step {
        /// Of the groups.
        found: u64,
        /// The optimizer's next.
        expected: u64,
    },
    /// Groups do not fit the policy.
    #[error("cannot train on the groups of step {step}")]
    Batch {
        /// Which step.
        step: u64,
        /// Why.
        source: podium_model::packed::Error,
    },
    /// The ranks are not together any more.
    #[error(transparent)]
    Collective(#[from] collective::Error),
    /// The gradient leads nowhere.
    #[error("cannot take step {step}")]
    Optimizer {
        /// Which step.
        step: u64,
        /// Why.
        source: adamw::Error,
    },
}

/// A policy in training.
#[derive(Debug)]
pub struct Updater {
    policy: Policy,
    /// The policy of version 0, where the objective has a KL term. It shares what is not trained.
    reference: Option<Policy>,
    optimizer: AdamW,
    schedule: Schedule,
    file: RunFile,
}

impl Updater {
    /// A policy, that of version 0, before the first step of a run.
    pub fn new(mut policy: Policy, file: &RunFile) -> Self {
        let reference = (file.grpo.beta != 0.0).then(|| policy.reference());
        policy.set_training(true);
        Self {
            reference,
            optimizer: AdamW::new(policy.trainable(), (&file.learner).into()),
            schedule: Schedule {
                peak: file.learner.learning_rate,
                warmup_steps: file.learner.warmup_steps,
                course: Course::Constant,
            },
            file: file.clone(),
            policy,
        }
    }

    /// The policy as it is now.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The step that comes next.
    pub const fn next_step(&self) -> Step {
        Step(self.optimizer.steps())
    }

    /// Everything that the next step depends on, by name; the tensors share memory with the policy's and optimizer's.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.optimizer.state()
    }

    /// To be called when the tensors of [`Self::state`] have been overwritten with those before step `next`.
    pub fn restored(&mut self, next: Step) {
        self.optimizer.restored(next.0);
    }

    /// Trains on one step's groups, together with the other ranks.
    pub fn update(&mut self, share: &Share, collective: &mut dyn Collective) -> Result<Metrics, Error> {
        let start = Instant::now();
        let (step, expected) = (share.step.0, self.next_step().0);
        if step != expected {
            return Err(Error::Step { found: step, expected });
        }
        share.check().map_err(|source| Error::Share { step, source })?;
        // What an earlier attempt at this step left behind.
        self.policy.zero_gradients();
        let groups = self.file.learner.groups_per_micro_batch as usize;
        let batches = share.micro_batches(&self.file.grpo, groups);
        let figures = batches.iter().map(|batch| self.accumulate(batch)).collect::<Result<Vec<_>, _>>();
        let own = Figures::total(&figures.map_err(|source| Error::Batch { step, source })?);

        let mut gradients = gradients::of(&self.policy);
        let totals = if collective.world_size() > 1 {
            gradients = reduce(&gradients, collective)?;
            Totals::over_ranks(&collective.all_gather(&own.to_numbers())?)
        } else {
            own
        };
        let learning_rate = self.schedule.at(step);
        let stepped = self.optimizer.step(&mut gradients, learning_rate);
        let grad_norm = stepped.map_err(|source| Error::Optimizer { step, source })?;
        Ok(self.metrics(share, &totals, grad_norm, learning_rate, start))
    }

    /// Adds a micro-batch's gradient to the parameters'.
    fn accumulate(&self, batch: &MicroBatch<'_>) -> Result<Figures, podium_model::packed::Error> {
        let packed = Packed::new(&batch.groups.iter().map(|group| tokens(group)).collect::<Vec<_>>())?;
        let (temperature, options) = (self.file.rollout.temperature, &self.file.grpo);
        let reference = match &self.reference {
            Some(reference) => Some(reference.score(&packed, temperature, Entropy::Skipped)?.logprobs),
            None => None,
        };
        let tokens = Tokens::new(batch, reference.as_ref(), self.policy.device());
        if !batch.moves {
            let scores = self.policy.score(&packed, temperature, Entropy::Measured)?;
            return Ok(objective(&scores.logprobs, scores.entropy.as_ref(), &tokens, options).figures);
        }
        let pass = TrainingOptions {
            temperature,
            entropy: Entropy::Measured,
            recompute_layers: self.file.learner.recompute_layers,
            dropout: Some(lora::dropout(&self.file, self.next_step().0)),
        };
        let pass = self.policy.training_pass(&packed, pass)?;
        let scores = pass.scores();
        let Objective { loss, figures } =
            objective(&scores.logprobs, scores.entropy.as_ref(), &tokens, options);
        loss.backward();
        pass.backward();
        Ok(figures)
    }

    fn metrics(
        &self,
        share: &Share,
        totals: &Totals,
        grad_norm: f64,
        learning_rate: f64,
        start: Instant,
    ) -> Metrics {
        let tokens = share.tokens_in_step.max(1) as f64;
        let (low, high) = (totals.clipped_low / tokens, totals.clipped_high / tokens);
        let mut metrics = vec![
            ("loss", totals.loss),
            ("entropy", totals.entropy / tokens),
            ("clip_ratio/low_mean", low),
            ("clip_ratio/high_mean", high),
            ("clip_ratio/region_mean", low + high),
            ("grad_norm", grad_norm),
            ("learning_rate", learning_rate),
            ("sampling/sampling_logp_difference/mean", totals.gap / tokens),
            ("sampling/sampling_logp_difference/max", totals.largest_gap),
            ("frac_reward_zero_std", share.zero_variance_share()),
            ("learner_seconds", start.elapsed().as_secs_f64()),
        ];
        if self.reference.is_some() {
            metrics.push(("kl", totals.kl / tokens));
        }
        metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn tokens(group: &Group) -> GroupTokens<'_> {
    let completions = group.completions.iter().map(|completion| completion.token_ids.as_slice()).collect();
    GroupTokens { prompt: &group.prompt_ids, completions }
}

/// Sums the gradients over all ranks, as one flat tensor on the way.
fn reduce(gradients: &[Tensor], collective: &mut dyn Collective) -> Result<Vec<Tensor>, collective::Error> {
    let flat: Vec<Tensor> = gradients.iter().map(|gradient| gradient.reshape([-1])).collect();
    let mut sum = Tensor::cat(&flat, 0);
    collective.all_reduce_sum(&mut sum)?;
    let sizes: Vec<i64> = flat.iter().map(|gradient| gradient.size()[0]).collect();
    let parts = sum.split_with_sizes(&sizes[..], 0);
    Ok(parts.iter().zip(gradients).map(|(part, gradient)| part.view(&gradient.size()[..])).collect())
}

#[cfg(test)]
mod tests;
