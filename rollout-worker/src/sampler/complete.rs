//! Sampling of a batch, in parts if it does not fit into the device's memory.

use std::cell::Cell;
use std::ops::Range;
use std::time::{Duration, Instant};

use podium_checkpoint::flops::{Positions, forward};
use podium_constraint::{Completions, Constraint};
use podium_grpo::{Completion, Sampling};
use podium_model::{Policy, generate, memory};

use super::batch::{Batch, Completed};
use super::{Error, Sampler};
use crate::lease::Cost;
use crate::metrics;

impl Sampler {
    /// Samples completions of token ids; returns `None` if `stop` returned true before the end.
    ///
    /// A batch that does not fit into the device's memory is sampled in parts: fewer prompts at once, then fewer
    /// completions of a prompt. Later batches have parts of the same size.
    pub(crate) fn complete(
        &self,
        batch: &Batch<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Completed>, Error> {
        let (size, mut done, mut first) = (batch.samples.len(), Completed::default(), 0);
        while first < batch.prompts.len() {
            let part = self.part.get().of(batch.prompts.len() - first, size);
            let prompts = first..first + part.prompts;
            match memory::attempt(|| self.complete_prompts(batch, prompts, part.samples, stop)) {
                Ok(sampled) => {
                    let Some(sampled) = sampled? else { return Ok(None) };
                    done.groups.extend(sampled.groups);
                    done.cost += sampled.cost;
                    first += part.prompts;
                }
                Err(memory::UsedUp(reason)) => {
                    let Some(smaller) = part.smaller() else { return Err(Error::Memory { reason }) };
                    tracing::warn!(
                        "{part} do not fit into the memory of the device ({reason}): sampling {smaller} at once, also of \
                         later leases; results differ by rounding from those of a larger device"
                    );
                    metrics::out_of_memory();
                    self.part.set(smaller);
                }
            }
        }
        Ok(Some(done))
    }

    /// Samples some prompts of a batch, `size` completions of each at once.
    fn complete_prompts(
        &self,
        batch: &Batch<'_>,
        prompts: Range<usize>,
        size: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Completed>, Error> {
        let count = batch.samples.len();
        let mut done =
            Completed { groups: vec![Vec::with_capacity(count); prompts.len()], ..Completed::default() };
        for first in (0..count).step_by(size.max(1)) {
            let part = batch.cut(prompts.clone(), first..count.min(first + size));
            let Some(sampled) = self.complete_part(&part, stop)? else { return Ok(None) };
            done.groups.iter_mut().zip(sampled.groups).for_each(|(all, own)| all.extend(own));
            done.cost += sampled.cost;
        }
        Ok(Some(done))
    }

    /// Samples a batch at once.
    fn complete_part(&self, batch: &Batch<'_>, stop: &dyn Fn() -> bool) -> Result<Option<Completed>, Error> {
        #[cfg(test)]
        super::batch::injected::take(batch.prompts.len() * batch.samples.len());
        let loaded = self.loaded.as_ref().ok_or(Error::Empty)?;
        let (policy, tokenizer) = (loaded.policy(), &loaded.tokenizer);
        let group_size = batch.samples.len();
        let mut restricted = Vec::with_capacity(batch.answers.len());
        for answer in batch.answers {
            let constraint = Constraint::new(loaded.vocabulary()?, answer.clone());
            restricted.push(Completions::new(constraint, group_size));
        }
        let mut allowed =
            |prompt: usize, sample, ids: &[u32]| restricted.get_mut(prompt)?.allowed(sample, ids);
        let stop_token_ids = if batch.ignore_stop { Vec::new() } else { tokenizer.stop_token_ids().to_vec() };
        let sampling = Sampling { stop_token_ids, ..batch.sampling.clone() };
        let uniform = |prompt: usize, sample: usize, position: usize| {
            batch.streams[prompt][batch.samples.start + sample].clone().at(position as u64).uniform()
        };
        let began = Instant::now();
        let steps = Steps::default();
        let stop = || {
            steps.begin();
            stop()
        };
        let generated = podium_model::generate_restricted(
            policy,
            generate::Batch { prompts: batch.prompts, group_size, prefill_tokens: self.prefill_tokens },
            &sampling,
            &uniform,
            &mut allowed,
            &stop,
        );
        let generated = match generated {
            Err(generate::Error::Stopped { .. }) => return Ok(None),
            generated => generated?,
        };
        let (total, prefill) = (began.elapsed(), steps.prefill(began));
        let mut completion_tokens = 0;
        let mut completion = |sampled: podium_model::Sampled| {
            completion_tokens += sampled.token_ids.len() as u64;
            let (text, text_ends) = tokenizer.decode_with_ends(&sampled.token_ids).map_err(Error::Text)?;
            Ok(Completion {
                text,
                text_ends,
                token_ids: sampled.token_ids,
                logprobs: sampled.logprobs,
                sampled_logprobs: sampled.sampled_logprobs,
                allowed: sampled.allowed,
                finish_reason: sampled.finish_reason,
            })
        };
        let groups = generated.groups.into_iter();
        let groups = groups
            .map(|group| group.into_iter().map(&mut completion).collect())
            .collect::<Result<Vec<Vec<Completion>>, Error>>()?;
        let prefill = prefill.unwrap_or(total);
        let cost = Cost {
            prefill,
            decode: total.saturating_sub(prefill),
            prompt_tokens: generated.prefill_tokens as u64,
            completion_tokens,
            flops: flops(policy, batch.prompts, &groups),
        };
        Ok(Some(Completed { groups, cost }))
    }
}

/// Floating point operations of the policy for these groups.
fn flops(policy: &Policy, prompts: &[Vec<u32>], groups: &[Vec<Completion>]) -> u64 {
    let of_group = |(prompt, group): (&Vec<u32>, &Vec<Completion>)| {
        let lengths = group.iter().map(|completion| completion.len() as u64);
        Positions::of_group(prompt.len() as u64, lengths)
    };
    forward(policy.config(), prompts.iter().zip(groups).map(of_group).sum())
}

/// Distinguishes prefill from decoding by the steps that sampling announces.
#[derive(Default)]
struct Steps {
    begun: Cell<u32>,
    second: Cell<Option<Instant>>,
}

impl Steps {
    /// Records the start of a step.
    fn begin(&self) {
        self.begun.set(self.begun.get() + 1);
        if self.begun.get() == 2 {
            self.second.set(Some(Instant::now()));
        }
    }

    /// Returns the time until every completion had its first token, if any continued after it. Selecting a
    /// token waits for the device, so the time is also correct on a GPU.
    fn prefill(&self, began: Instant) -> Option<Duration> {
        self.second.get().map(|second| second - began)
    }
}
