//! Detection of groups that a policy cannot be trained on, before a step is applied, and agreed on by all ranks.
//!
//! A group is unusable if it is inconsistent or does not fit the policy, if the log-probabilities that its worker
//! recorded are too far from the policy's own, or if it alone makes the gradient infinite or not a number.

use podium_grpo::plan::{self, StepSize};
use podium_grpo::{Group, Step};
use podium_model::{Entropy, packed};
use tch::{Device, Tensor};

use super::error::Error;
use super::gaps::Gaps;
use super::micro_batch::{InHand, packed};
use super::unusable::Unusable;
use super::updater::Updater;
use crate::batch::{self, Share};
use crate::collective::Collective;
use podium_model::memory;

impl Updater {
    /// Returns the groups of a share that are inconsistent, or that this policy cannot compute.
    pub fn unusable(&self, share: &Share) -> Vec<Unusable> {
        let cause = |group: &Group| -> Option<String> {
            let (index, found, expected) =
                (group.id.index, group.completions.len(), self.file.rollout.group_size);
            if found != expected as usize {
                return Some(batch::Error::Size { index, found, expected }.to_string());
            }
            let held = share
                .check_age(group, self.file.rollout.max_policy_lag)
                .and_then(|()| share.check_group(group, &self.file.grpo));
            if let Err(error) = held {
                return Some(error.to_string());
            }
            let fits = packed(&[group]).and_then(|batch| batch.check(self.policy.config()));
            fits.err().map(|error| error.to_string())
        };
        share.groups.iter().filter_map(|group| Some(Unusable::new(group.id, cause(group)?))).collect()
    }

    /// Returns the groups whose log-probabilities are out of bounds. A gap that is not a number is not their fault:
    /// the behaviour log-probabilities are finite, so the policy's are not.
    pub(super) fn out_of_bounds(
        &self,
        step: Step,
        parts: &[Gaps<'_>],
    ) -> Result<Vec<Unusable>, packed::Error> {
        let bound = self.file.learner.max_logprob_gap_nats;
        if bound == 0.0 || parts.is_empty() {
            return Ok(Vec::new());
        }
        let all = Tensor::cat(&parts.iter().map(|part| &part.largest).collect::<Vec<_>>(), 0);
        let gaps = Vec::<f64>::try_from(all.to_device(Device::Cpu)).expect("one number for each group");
        let groups = parts.iter().flat_map(|part| part.groups);
        let mut unusable = Vec::new();
        for (group, mut gap) in groups.zip(gaps) {
            // A group of an older version also differs by the updates since.
            if gap <= bound || gap.is_nan() || group.policy_version.0 != step.0 {
                continue;
            }
            if self.file.lora.dropout > 0.0 {
                gap = self.gap_without_dropout(group)?;
            }
            if gap > bound {
                let cause = format!(
                    "a log-probability that its worker recorded is {gap:.3e} nats away from the learner's: expected at most \
                     {bound} (learner.max_logprob_gap_nats)"
                );
                unusable.push(Unusable::new(group.id, cause));
            }
        }
        Ok(unusable)
    }

    /// Returns the largest gap of a group under the policy as workers use it: without the adapter's dropout.
    fn gap_without_dropout(&self, group: &Group) -> Result<f64, packed::Error> {
        let temperature = self.file.rollout.temperature;
        let scores = self.policy.score(&packed(&[group])?, temperature, Entropy::Skipped)?;
        let logprobs =
            Vec::<f32>::try_from(scores.logprobs.to_device(Device::Cpu)).expect("one number for each token");
        let mut logprobs = logprobs.into_iter();
        let mut largest = 0.0_f64;
        for completion in &group.completions {
            let counts = plan::counts(completion, &self.file.grpo);
            for (behaviour, own) in completion.logprobs.iter().zip(logprobs.by_ref().take(completion.len())) {
                if counts {
                    largest = largest.max((f64::from(own) - f64::from(*behaviour)).abs());
                }
            }
        }
        Ok(largest)
    }

    /// Returns the groups whose gradient is infinite or not a number, of a step whose gradient is. Returns none if
    /// that applies to every group of the step: then the policy is at fault. Every rank must call it.
    pub(super) fn not_finite(
        &mut self,
        share: &Share,
        size: &StepSize,
        collective: &mut dyn Collective,
    ) -> Result<Vec<Unusable>, Error> {
        let batches = share.micro_batches(&self.file.grpo, size, 1);
        let moving: Vec<_> = batches.iter().filter(|batch| batch.moves).collect();
        let mut unusable = Vec::new();
        for batch in &moving {
            self.policy.clear_gradients();
            let attempt = memory::attempt(|| self.accumulate(&mut InHand { batch, tokens: None }, true));
            // A group that does not fit alone is detected by the next attempt at the step.
            let Ok(accumulated) = attempt else { continue };
            accumulated.map_err(|source| Error::Batch { step: share.step.0, source })?;
            let finite = |gradient: &Tensor| gradient.isfinite().all().int64_value(&[]) == 1;
            if !self.policy.take_gradients().iter().all(finite) {
                unusable.push(Unusable::new(batch.groups[0].id, "its gradient is infinite or not a number"));
            }
        }
        self.policy.clear_gradients();
        let counts = collective.all_gather(&[unusable.len() as f64, moving.len() as f64])?;
        let [found, all] = [0, 1].map(|place| counts.iter().map(|rank| rank[place]).sum::<f64>());
        if found < all { Ok(unusable) } else { Ok(Vec::new()) }
    }
}

/// Agrees with the other ranks that all groups of a step can be trained on. `unusable`: the unusable groups of this
/// rank.
///
/// # Errors
///
/// Fails on every rank if any rank has an unusable group; each rank receives its own groups.
pub fn agree(step: Step, unusable: Vec<Unusable>, collective: &mut dyn Collective) -> Result<(), Error> {
    let ranks = collective.all_gather(&[unusable.len() as f64])?;
    if ranks.iter().any(|rank| rank[0] > 0.0) {
        return Err(Error::Unusable { step: step.0, groups: unusable });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
