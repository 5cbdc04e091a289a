//! Samples groups of completions for prompts. The forward of each prompt is computed once.
//!
//! The result is a function of the weights, the batch and the uniform numbers. Every unfinished
//! completion gets one token per step. Finished completions are dropped when that at least halves
//! the work, which depends on the batch alone.

use std::sync::Arc;

use podium_grpo::group::Allowed;
use podium_grpo::{FinishReason, Sampling, sampling};
use tch::{Tensor, no_grad};

use crate::cache::Cache;
use crate::packed;
use crate::policy::Policy;
use crate::prefill::{packed_prompts, prefill};
use crate::sampler::{Next, sample_next};

/// The reasons why sampling fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The prompts do not fit the policy.
    #[error("cannot sample completions for these prompts")]
    Prompts(#[from] packed::Error),
    /// A sampling parameter is out of range.
    #[error("invalid sampling parameters")]
    Sampling(#[from] sampling::Error),
    /// The group size is 0.
    #[error("group size is 0, expected at least 1")]
    GroupSize,
    /// The caller stopped the sampling.
    #[error("sampling was stopped after {steps} steps")]
    Stopped {
        /// Number of tokens of each unfinished completion.
        steps: usize,
    },
    /// A restriction allows no token.
    #[error(
        "no token may follow the {position} tokens of completion {sample} of prompt {prompt}: expected at least one"
    )]
    NothingAllowed {
        /// Index of the prompt in the batch.
        prompt: usize,
        /// Index of the completion in its group.
        sample: usize,
        /// Number of tokens of the completion.
        position: usize,
    },
    /// A log-probability is not finite.
    #[error(
        "the log-probability of token {position} of completion {sample} of prompt {prompt} is not finite"
    )]
    NotFinite {
        /// Index of the prompt in the batch.
        prompt: usize,
        /// Index of the completion in its group.
        sample: usize,
        /// Index of the token in the completion.
        position: usize,
    },
}

/// A function that returns the tokens that may follow a completion, ascending. Its arguments are the prompt,
/// the sample and the token ids so far; `None` allows all tokens.
pub type AllowedNext<'a> = dyn FnMut(usize, usize, &[u32]) -> Option<Arc<[u32]>> + 'a;

/// A completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its tokens, at least one.
    pub token_ids: Vec<u32>,
    /// Log-probability of each token under the full temperature-scaled distribution, renormalised over the allowed
    /// tokens; in nats.
    pub logprobs: Vec<f32>,
    /// Log-probability of each token under the truncated distribution that it was sampled from, if `top_p` or `top_k`
    /// truncate.
    pub sampled_logprobs: Option<Vec<f32>>,
    /// Positions and tokens of restricted sampling.
    pub allowed: Vec<Allowed>,
    /// The reason why it ended.
    pub finish_reason: FinishReason,
}

/// Completions, and the work that they took.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The completions of each prompt.
    pub groups: Vec<Vec<Sampled>>,
    /// Number of tokens of all prompts, each computed once.
    pub prefill_tokens: usize,
    /// Number of rows that the decoding steps computed, including finished completions.
    pub decode_rows: usize,
}

/// Prompts to sample completions for.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids, at least one each.
    pub prompts: &'a [Vec<u32>],
    /// Completions of each prompt, at least 1.
    pub group_size: usize,
    /// Maximum number of prompt tokens that are computed at once, at least 1. Prompts count with the length of the
    /// longest that is computed with them; a longer prompt is computed in parts.
    pub prefill_tokens: usize,
}

/// Samples `group_size` completions for each prompt, all of which are computed at once.
///
/// `uniform(prompt, sample, position)` returns the number in \[0, 1) that selects a token; `stop()` is polled before
/// every step.
pub fn generate(
    policy: &Policy,
    prompts: &[Vec<u32>],
    group_size: usize,
    sampling: &Sampling,
    uniform: &dyn Fn(usize, usize, usize) -> f64,
    stop: &dyn Fn() -> bool,
) -> Result<Generated, Error> {
    let batch = Batch { prompts, group_size, prefill_tokens: usize::MAX };
    generate_restricted(policy, batch, sampling, uniform, &mut |_, _, _| None, stop)
}

/// Samples like [`generate()`], with prompts in chunks, restricted to the allowed tokens.
pub fn generate_restricted(
    policy: &Policy,
    batch: Batch<'_>,
    sampling: &Sampling,
    uniform: &dyn Fn(usize, usize, usize) -> f64,
    allowed: &mut AllowedNext<'_>,
    stop: &dyn Fn() -> bool,
) -> Result<Generated, Error> {
    batch.check(policy, sampling)?;
    no_grad(|| {
        let (prompts, after_prompts) =
            prefill(policy, batch.prompts, batch.prefill_tokens, sampling.scoring_temperature())?;
        let cache = Cache::new(prompts, batch.group_size as i64);
        let mut decoding = Decoding::new(policy, batch, sampling, cache);
        let mut logits = after_prompts.repeat_interleave_self_int(batch.group_size as i64, 0, None);
        drop(after_prompts);
        for position in 0..sampling.max_new_tokens {
            if stop() {
                return Err(Error::Stopped { steps: position });
            }
            decoding.choose(&logits, position, uniform, allowed)?;
            if decoding.is_finished() || position + 1 == sampling.max_new_tokens {
                break;
            }
            decoding.drop_finished();
            drop(logits);
            logits = decoding.step(position);
        }
        Ok(decoding.into_generated())
    })
}

impl Batch<'_> {
    /// Checks that the policy can sample the batch.
    fn check(&self, policy: &Policy, sampling: &Sampling) -> Result<(), Error> {
        sampling.check()?;
        if self.group_size == 0 {
            return Err(Error::GroupSize);
        }
        packed_prompts(self.prompts)?.check(policy.config())?;
        let longest = self.prompts.iter().map(Vec::len).max().unwrap_or(0) + sampling.max_new_tokens;
        let max_positions = policy.config().max_position_embeddings;
        if longest as i64 > max_positions {
            return Err(packed::Error::TooLong { length: longest, max_positions }.into());
        }
        Ok(())
    }
}

/// A completion during decoding.
struct Row {
    prompt: usize,
    sample: usize,
    token_ids: Vec<u32>,
    logprobs: Vec<f32>,
    sampled_logprobs: Vec<f32>,
    allowed: Vec<Allowed>,
    finish_reason: Option<FinishReason>,
}

/// The state of one call of [`generate`].
struct Decoding<'a> {
    policy: &'a Policy,
    sampling: &'a Sampling,
    prompt_lengths: Vec<usize>,
    rows: Vec<Row>,
    /// The row that each lane of the cache computes; every remaining prompt has the same number of
    /// lanes. The result of a lane with a finished row is unused.
    lanes: Vec<usize>,
    lanes_per_prompt: usize,
    cache: Cache,
    decode_rows: usize,
}

impl<'a> Decoding<'a> {
    fn new(policy: &'a Policy, batch: Batch<'_>, sampling: &'a Sampling, cache: Cache) -> Self {
        let Batch { prompts, group_size, .. } = batch;
        let row = |index: usize| Row {
            prompt: index / group_size,
            sample: index % group_size,
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            sampled_logprobs: Vec::new(),
            allowed: Vec::new(),
            finish_reason: None,
        };
        let count = prompts.len() * group_size;
        Self {
            policy,
            sampling,
            prompt_lengths: prompts.iter().map(Vec::len).collect(),
            rows: (0..count).map(row).collect(),
            lanes: (0..count).collect(),
            lanes_per_prompt: group_size,
            cache,
            decode_rows: 0,
        }
    }

    /// Selects the next token of every unfinished completion.
    fn choose(
        &mut self,
        logits: &Tensor,
        position: usize,
        uniform: &dyn Fn(usize, usize, usize) -> f64,
        allowed: &mut AllowedNext<'_>,
    ) -> Result<(), Error> {
        let next = self.lanes.iter().map(|row| self.next(&self.rows[*row], allowed));
        let next = next.collect::<Result<Vec<_>, _>>()?;
        let number = |lane: &usize| {
            let row = &self.rows[*lane];
            if row.finish_reason.is_some() { 0.0 } else { uniform(row.prompt, row.sample, position) }
        };
        let numbers: Vec<_> = self.lanes.iter().map(number).collect();
        let drawn = sample_next(logits, self.sampling, &numbers, &next, self.policy.is_fused());
        for (lane, row) in self.lanes.iter().enumerate() {
            let row = &mut self.rows[*row];
            if row.finish_reason.is_some() {
                continue;
            }
            let (token, logprob) = (drawn.token_ids[lane], drawn.logprobs[lane]);
            if !logprob.is_finite() {
                return Err(Error::NotFinite { prompt: row.prompt, sample: row.sample, position });
            }
            if let Next::One(token_ids) = &next[lane] {
                row.allowed.push(Allowed { position: position as u32, token_ids: token_ids.to_vec() });
            }
            row.token_ids.push(token);
            row.logprobs.push(logprob);
            row.sampled_logprobs.extend(drawn.sampled_logprobs.as_ref().map(|logprobs| logprobs[lane]));
            if self.sampling.stop_token_ids.contains(&token) {
                row.finish_reason = Some(FinishReason::Stop);
            }
        }
        Ok(())
    }

    /// Returns the tokens that may follow a completion.
    fn next(&self, row: &Row, allowed: &mut AllowedNext<'_>) -> Result<Next, Error> {
        if row.finish_reason.is_some() {
            return Ok(Next::None);
        }
        let &Row { prompt, sample, .. } = row;
        let Some(set) = allowed(prompt, sample, &row.token_ids) else { return Ok(Next::Any) };
        let position = row.token_ids.len();
        let largest = *set.last().ok_or(Error::NothingAllowed { prompt, sample, position })?;
        let vocab_size = self.policy.config().vocab_size;
        if i64::from(largest) >= vocab_size {
            return Err(packed::Error::Vocabulary { token: largest, vocab_size }.into());
        }
        Ok(Next::One(set))
    }

    fn is_finished(&self) -> bool {
        self.rows.iter().all(|row| row.finish_reason.is_some())
    }

    /// Drops prompts without unfinished completions, and the same number of finished lanes of every prompt, if that
    /// leaves at most half of the lanes.
    fn drop_finished(&mut self) {
        let groups = self.lanes.chunks(self.lanes_per_prompt).enumerate();
        let unfinished: Vec<(usize, Vec<usize>)> = groups
            .map(|(prompt, rows)| {
                let lanes = (0..rows.len()).filter(|lane| self.rows[rows[*lane]].finish_reason.is_none());
                (prompt, lanes.map(|lane| prompt * self.lanes_per_prompt + lane).collect())
            })
            .filter(|(_, lanes): &(usize, Vec<usize>)| !lanes.is_empty())
            .collect();
        let lanes_per_prompt = unfinished.iter().map(|(_, lanes)| lanes.len()).max().unwrap_or(0);
        if 2 * lanes_per_prompt * unfinished.len() > self.lanes.len() {
            return;
        }
        let mut kept_lanes = Vec::with_capacity(unfinished.len() * lanes_per_prompt);
        for (prompt, lanes) in &unfinished {
            let first = prompt * self.lanes_per_prompt;
            let idle = (first..first + self.lanes_per_prompt).filter(|lane| !lanes.contains(lane));
            kept_lanes.extend(lanes.iter().copied().chain(idle).take(lanes_per_prompt));
        }
        let prompts: Vec<_> = unfinished.iter().map(|(prompt, _)| *prompt).collect();
        self.cache.keep(&prompts, &kept_lanes);
        self.lanes = kept_lanes.iter().map(|lane| self.lanes[*lane]).collect();
        self.lanes_per_prompt = lanes_per_prompt;
    }

    /// Computes the token at `position` of every lane. Returns the logits of the next token,
    /// \[lanes, vocabulary\].
    fn step(&mut self, position: usize) -> Tensor {
        let lane_numbers = |number: &dyn Fn(&Row) -> i64| {
            let numbers: Vec<_> = self.lanes.iter().map(|row| number(&self.rows[*row])).collect();
            Tensor::from_slice(&numbers).to_device(self.policy.device())
        };
        // A finished completion repeats its last token; the result is unused.
        let tokens = lane_numbers(&|row| row.token_ids.last().map_or(0, |token| i64::from(*token)));
        let positions = lane_numbers(&|row| (self.prompt_lengths[row.prompt] + position) as i64);
        self.decode_rows += self.lanes.len();
        self.cache.advance();
        let x = self.policy.trunk(&tokens, &self.policy.rows(&positions), &mut self.cache);
        self.policy.next_logits(&x, self.sampling.scoring_temperature())
    }

    fn into_generated(self) -> Generated {
        let prefill_tokens = self.prompt_lengths.iter().sum();
        let truncated = self.sampling.is_truncated();
        let mut groups: Vec<Vec<Sampled>> = self.prompt_lengths.iter().map(|_| Vec::new()).collect();
        for row in self.rows {
            groups[row.prompt].push(Sampled {
                token_ids: row.token_ids,
                logprobs: row.logprobs,
                sampled_logprobs: truncated.then_some(row.sampled_logprobs),
                allowed: row.allowed,
                finish_reason: row.finish_reason.unwrap_or(FinishReason::Length),
            });
        }
        Generated { groups, prefill_tokens, decode_rows: self.decode_rows }
    }
}
