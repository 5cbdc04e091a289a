//! Packed batches: each prompt once, followed by its completions, for scoring and for training.
//!
//! The layers process flat rows without padding, first all prompts and then all completions; only attention pads. The
//! last token of a completion is never an input, since nothing is predicted from it.

mod error;
mod padded;

use podium_torch_shim::{PromptQueries, Sequences};
use tch::{Device, Tensor};

pub use error::Error;
use padded::Padded;
pub(crate) use padded::key_bias;

use crate::allowed::Restrictions;
use crate::attention::{Arrangement, Heads};
use crate::config::Config;
use crate::options::AttentionKernel;
use crate::policy::Policy;
use crate::random::mix;
use crate::shim::computed;

/// The tokens of one prompt and of its completions.
#[derive(Clone, Debug)]
pub struct GroupTokens<'a> {
    /// At least one token.
    pub prompt: &'a [u32],
    /// As many as in every other group of the batch; some may be empty.
    pub completions: Vec<&'a [u32]>,
}

/// A batch of prompts, each with its completions, ready for [`Policy::score`](crate::Policy::score) and
/// [`Policy::training_pass`](crate::Policy::training_pass).
#[derive(Clone, Debug)]
pub struct Packed {
    prompt_lengths: Vec<usize>,
    group_size: usize,
    completion_lengths: Vec<usize>,
    /// Flat inputs: all prompts, then all completions without their last tokens.
    tokens: Vec<i64>,
    /// Position of each input in its sequence.
    positions: Vec<i64>,
    /// For each completion token, the output whose hidden state predicts it.
    predictors: Vec<i64>,
    /// The completion tokens, in (prompt, completion, token) order.
    targets: Vec<i64>,
    restrictions: Restrictions,
}

impl Packed {
    /// Creates a batch. Prompts and completions may differ in length; groups must have the same size.
    pub fn new(groups: &[GroupTokens]) -> Result<Self, Error> {
        let Some(first) = groups.first() else { return Err(Error::NoPrompt) };
        let group_size = first.completions.len();
        let mut batch = Self {
            prompt_lengths: Vec::new(),
            group_size,
            completion_lengths: Vec::new(),
            tokens: Vec::new(),
            positions: Vec::new(),
            predictors: Vec::new(),
            targets: Vec::new(),
            restrictions: Restrictions::default(),
        };
        for (prompt, group) in groups.iter().enumerate() {
            if group.prompt.is_empty() {
                return Err(Error::EmptyPrompt { prompt });
            }
            let found = group.completions.len();
            if found != group_size {
                return Err(Error::GroupSize { prompt, found, expected: group_size });
            }
            batch.prompt_lengths.push(group.prompt.len());
            batch.push_inputs(group.prompt, 0);
        }
        let prompt_rows = batch.tokens.len();
        for (prompt, group) in groups.iter().enumerate() {
            for completion in &group.completions {
                batch.push_completion(completion, prompt, prompt_rows);
            }
        }
        Ok(batch)
    }

    /// Adds sets to the batch: tokens that were sampled from sets are scored under the distribution renormalised over
    /// their set. `allowed`: completion in (prompt, completion) order, position in it and set of ascending token ids,
    /// in ascending order.
    pub fn restricted<'a>(
        mut self,
        allowed: impl IntoIterator<Item = (usize, usize, &'a [u32])>,
    ) -> Result<Self, Error> {
        let (mut completion_before, mut first_token) = (0, 0);
        for (completion, position, set) in allowed {
            let between = self.completion_lengths.get(completion_before..completion).unwrap_or_default();
            first_token += between.iter().sum::<usize>();
            completion_before = completion;
            let token = first_token + position;
            let length = self.completion_lengths.get(completion).copied().unwrap_or(0);
            match self.targets.get(token).filter(|_| position < length) {
                Some(chosen) => self.restrictions.push(token, *chosen as u32, set)?,
                None => return Err(Error::NoToken { completion, position }),
            }
        }
        Ok(self)
    }

    fn push_inputs(&mut self, tokens: &[u32], first_position: usize) {
        self.tokens.extend(tokens.iter().map(|token| i64::from(*token)));
        self.positions
            .extend((first_position..first_position + tokens.len()).map(|position| position as i64));
    }

    fn push_completion(&mut self, completion: &[u32], prompt: usize, prompt_rows: usize) {
        self.completion_lengths.push(completion.len());
        self.targets.extend(completion.iter().map(|token| i64::from(*token)));
        let Some((_, inputs)) = completion.split_last() else { return };
        let first_output = self.prompts() + self.tokens.len() - prompt_rows;
        self.predictors.push(prompt as i64);
        self.predictors.extend((first_output..first_output + inputs.len()).map(|output| output as i64));
        self.push_inputs(inputs, self.prompt_lengths[prompt]);
    }

    /// Number of prompts.
    pub fn prompts(&self) -> usize {
        self.prompt_lengths.len()
    }

    /// Number of completions of each prompt.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// Length of each completion, in (prompt, completion) order, for splitting the flat rows of the scores.
    pub fn completion_lengths(&self) -> &[usize] {
        &self.completion_lengths
    }

    /// Number of completion tokens, which is that of the log-probabilities of scoring.
    pub fn completion_tokens(&self) -> usize {
        self.targets.len()
    }

    /// Number of rows that a forward computes.
    pub fn input_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Checks that a model of this configuration can compute the batch.
    pub fn check(&self, config: &Config) -> Result<(), Error> {
        let outside = |token: &&i64| **token >= config.vocab_size;
        if let Some(token) = self.tokens.iter().chain(&self.targets).find(outside) {
            return Err(Error::Vocabulary { token: *token as u32, vocab_size: config.vocab_size });
        }
        if let Some(token) = self.restrictions.largest().find(|token| i64::from(*token) >= config.vocab_size)
        {
            return Err(Error::Vocabulary { token, vocab_size: config.vocab_size });
        }
        let prompt_of = |index: usize| self.prompt_lengths[index / self.group_size];
        let completed =
            self.completion_lengths.iter().enumerate().map(|(index, length)| prompt_of(index) + length);
        match completed.chain(self.prompt_lengths.iter().copied()).max() {
            Some(length) if length as i64 > config.max_position_embeddings => {
                Err(Error::TooLong { length, max_positions: config.max_position_embeddings })
            }
            _ => Ok(()),
        }
    }

    /// \[input tokens\], on the device.
    pub(crate) fn tokens(&self, device: Device) -> Tensor {
        Tensor::from_slice(&self.tokens).to_device(device)
    }

    /// \[input tokens\], on the device.
    pub(crate) fn positions(&self, device: Device) -> Tensor {
        Tensor::from_slice(&self.positions).to_device(device)
    }

    /// Returns a random number for each input token: a function of the seed, the prompt, the completion's position in
    /// its group and the token's position, independent of the rest of the batch.
    pub(crate) fn row_numbers(&self, seed: u64) -> Vec<i64> {
        let mut prompts = self.tokens.as_slice();
        let keys = self.prompt_lengths.iter().map(|length| {
            let (prompt, rest) = prompts.split_at(*length);
            prompts = rest;
            prompt.iter().fold(mix(seed), |key, token| mix(key ^ *token as u64))
        });
        let keys: Vec<u64> = keys.collect();
        let completions = self.completion_lengths.iter().enumerate().map(|(index, length)| {
            let place = index % self.group_size;
            (mix(keys[index / self.group_size] ^ (place as u64 + 1)), length.saturating_sub(1))
        });
        let sequences = keys.iter().copied().zip(self.prompt_lengths.iter().copied()).chain(completions);
        let rows = sequences.flat_map(|(key, length)| std::iter::repeat_n(key, length));
        rows.zip(&self.positions)
            .map(|(key, position)| mix(key.wrapping_add(*position as u64)) as i64)
            .collect()
    }

    /// The completion tokens that were sampled from sets.
    pub(crate) fn restrictions(&self) -> &Restrictions {
        &self.restrictions
    }

    /// \[completion tokens\], on the device.
    pub(crate) fn targets(&self, device: Device) -> Tensor {
        Tensor::from_slice(&self.targets).to_device(device)
    }

    /// The output that predicts each completion token, \[completion tokens\], on the device.
    pub(crate) fn predictors(&self, device: Device) -> Tensor {
        Tensor::from_slice(&self.predictors).to_device(device)
    }

    /// The rows whose outputs predict tokens: the last of each prompt, and all of completions; \[outputs\], on the device.
    pub(crate) fn outputs(&self, device: Device) -> Tensor {
        let ends = self.prompt_lengths.iter().scan(-1, |end, length| {
            *end += *length as i64;
            Some(*end)
        });
        let prompt_rows: usize = self.prompt_lengths.iter().sum();
        let completions = (prompt_rows..self.tokens.len()).map(|row| row as i64);
        Tensor::from_slice(&ends.chain(completions).collect::<Vec<_>>()).to_device(device)
    }

    /// Returns the arrangement for attention of the policy.
    pub(crate) fn arrangement(&self, policy: &Policy) -> PackedArrangement {
        let signed = |lengths: &mut dyn Iterator<Item = usize>| lengths.map(|length| length as i64).collect();
        PackedArrangement {
            prompts: signed(&mut self.prompt_lengths.iter().copied()),
            completions: signed(&mut self.completion_lengths.iter().map(|length| length.saturating_sub(1))),
            padded: match policy.attention_kernel() {
                AttentionKernel::Flash => None,
                AttentionKernel::Materialized => {
                    Some(Padded::new(&self.prompt_lengths, &self.completion_lengths, policy))
                }
            },
        }
    }
}

/// The arrangement of a packed batch.
#[derive(Debug)]
pub(crate) struct PackedArrangement {
    /// Number of rows of each prompt.
    prompts: Vec<i64>,
    /// Number of rows of each completion.
    completions: Vec<i64>,
    /// For attention with materialised scores.
    padded: Option<Padded>,
}

impl PackedArrangement {
    pub(crate) fn prompt_lengths(&self) -> &[i64] {
        &self.prompts
    }
}

impl Arrangement for PackedArrangement {
    fn attend(&mut self, _layer: usize, heads: &Heads) -> Tensor {
        if let Some(padded) = &self.padded {
            return padded.attend(heads);
        }
        let Heads { query, key, value, scale } = heads;
        let all = query.size()[0] == key.size()[0];
        let sequences = Sequences {
            prompts: &self.prompts,
            completions: &self.completions,
            queries: if all { PromptQueries::All } else { PromptQueries::Last },
        };
        let attended = computed(podium_torch_shim::attention(query, key, value, sequences, *scale));
        attended.view([query.size()[0], -1])
    }
}
