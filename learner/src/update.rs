//! One step of GRPO: forward and backward of micro-batches, gradients summed over the ranks, clipped, applied;
//! repeated `grpo.num_iterations` times.
//!
//! Groups include behaviour log-probabilities; their distance from the recomputed ones is a metric of every step.

mod detect;
mod error;
mod flops;
mod gaps;
mod metrics;
mod micro_batch;
#[cfg(test)]
mod tests;
mod unusable;
mod updater;

use std::time::Instant;

use podium_grpo::plan::StepSize;
use podium_grpo::step_metrics::StepMetrics;
use podium_model::memory;

use crate::batch::Share;
use crate::collective::{self, Collective};
use crate::loss::OnDevice;
use crate::optimizer::{self, Optimizer};
use gaps::Gaps;
use micro_batch::InHand;

pub use detect::agree;
pub use error::Error;
pub use metrics::{Metrics, of_step};
pub use unusable::Unusable;
pub use updater::Updater;

impl Updater {
    /// Trains on one step's groups, together with the other ranks; returns the metrics of each pass.
    pub fn update(&mut self, share: &Share, collective: &mut dyn Collective) -> Result<Vec<Metrics>, Error> {
        let (step, expected) = (share.step.0, self.next.0);
        if step != expected {
            return Err(Error::Step { found: step, expected });
        }
        share.check(&self.file.grpo).map_err(|source| Error::Share { step, source })?;
        let size = self.size(share, collective)?;
        let metrics = loop {
            let error = match self.passes(share, &size, collective) {
                Ok(metrics) => break metrics,
                Err(error) => error,
            };
            // The first pass has changed nothing yet; later passes depend on values stored with their micro-batches.
            let Error::Memory { pass: 0, groups, reason, .. } = &error else { return Err(error) };
            let Some(fewer) = self.micro_batches.halve(share.step, share.groups.len())? else {
                return Err(error);
            };
            tracing::warn!(
                "step {step} does not fit with {groups} groups per micro-batch ({reason}): continuing with {fewer}"
            );
            crate::metrics::out_of_memory(fewer);
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
        let batches = share.micro_batches(&self.file.grpo, size, self.micro_batches.at(share.step));
        self.flops = self.flops_of(&batches);
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
        self.policy.clear_gradients();
        let last = pass + 1 == self.file.grpo.num_iterations;
        let accumulate =
            || in_hand.iter_mut().map(|one| self.accumulate(one, last)).collect::<Result<Vec<_>, _>>();
        let parts = memory::attempt(accumulate).map_err(|memory::UsedUp(reason)| {
            let groups = self.micro_batches.at(share.step).min(share.groups.len());
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

        let totals = if collective.world_size() > 1 {
            let ranks = collective.all_gather(&own.to_numbers())?;
            StepMetrics::total(
                ranks.iter().filter_map(|rank| Some(StepMetrics::from_numbers(rank[..].try_into().ok()?))),
            )
        } else {
            own
        };
        let learning_rate = self.schedule.at(self.optimizer.steps());
        let gradients = self.policy.take_gradients();
        let applied = memory::attempt(|| {
            #[cfg(test)]
            crate::memory::injected::take_optimizer();
            self.optimizer.step(gradients, learning_rate, collective)
        })
        .map_err(|memory::UsedUp(reason)| Error::OptimizerMemory { step, reason })?;
        let grad_norm = match applied {
            Ok(norm) => norm,
            Err(optimizer::Error::Collective(error)) => return Err(error.into()),
            Err(optimizer::Error::Gradient(source)) => {
                if pass == 0 {
                    let not_finite = self.not_finite(share, size, collective)?;
                    agree(share.step, not_finite, collective)?;
                }
                return Err(Error::Optimizer { step, source });
            }
        };
        self.move_reference();
        let mut metrics = self.metrics(&totals, pass);
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
        let reference = self.reference.as_mut().filter(|_| options.sync_ref_model && due);
        if let (Some(reference), Optimizer::Replicated(adamw)) = (reference, &self.optimizer) {
            reference.follow(adamw.weights(), options.ref_model_mixup_alpha);
        }
    }
}
