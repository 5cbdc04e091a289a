//! Log-probabilities of many continuations, which are the same for all prompts: the items of a catalogue.
//!
//! Each prompt is computed once. Its keys and values are shared by all continuations, which follow in chunks of bounded
//! size. The first token of every continuation is read from the prompt's own logits.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use crate::attention::{
    Arrangement, Heads, KeyValue, Shared, attend, causal_bias, fold_keys, fold_queries, unfold,
};
use crate::cache::Prompts;
use crate::packed::{self, GroupTokens, Packed};
use crate::policy::Policy;
use crate::prefill::prefill;

/// Maximum number of attention scores of a chunk in one block, unless one continuation has more.
const CHUNK_SCORES: usize = 1 << 25;

/// Maximum number of rows of a chunk, unless one continuation has more.
const CHUNK_ROWS: usize = 8192;

/// Token ids of continuations, at least one each, in chunks of equal length.
#[derive(Debug, Clone)]
pub struct Continuations {
    tokens: Vec<Vec<u32>>,
    /// Continuations by number of tokens.
    by_length: BTreeMap<usize, Vec<usize>>,
}

impl Continuations {
    /// Creates continuations from token ids. Returns `None` for an empty list or an empty continuation.
    pub fn new(tokens: Vec<Vec<u32>>) -> Option<Self> {
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, tokens) in tokens.iter().enumerate() {
            by_length.entry(tokens.len()).or_default().push(index);
        }
        (!tokens.is_empty() && !by_length.contains_key(&0)).then_some(Self { tokens, by_length })
    }

    /// Returns the number of continuations.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns `false`: [`Self::new`] refuses an empty list.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Returns the number of tokens of each continuation.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.tokens.iter().map(Vec::len)
    }

    /// Returns the longest continuation.
    fn longest(&self) -> &[u32] {
        let last = self.by_length.last_key_value().and_then(|(_, indices)| indices.first());
        last.map_or(&[], |&index| &self.tokens[index])
    }
}

impl Policy {
    /// Returns the log-probability of each continuation after each prompt in nats, at temperature 1: the sum over its
    /// tokens. `prefill_tokens`: maximum number of prompt tokens that are computed at once.
    pub fn continuation_logprobs(
        &self,
        prompts: &[Vec<u32>],
        continuations: &Continuations,
        prefill_tokens: usize,
    ) -> Result<Vec<Vec<f64>>, packed::Error> {
        let group = |prompt, completions| GroupTokens { prompt, completions };
        for (index, prompt) in prompts.iter().enumerate() {
            let some = if index == 0 {
                continuations.tokens.iter().map(Vec::as_slice).collect()
            } else {
                vec![continuations.longest()]
            };
            Packed::new(&[group(prompt, some)])?.check(self.config())?;
        }
        no_grad(|| {
            let (cache, logits) = prefill(self, prompts, prefill_tokens, 1.0)?;
            let first = logits.log_softmax(-1, Kind::Float);
            let of_prompt = |(index, prompt): (usize, &Vec<u32>)| {
                let prompt = Prompt { policy: self, cache: &cache, index, length: prompt.len() };
                prompt.logprobs(&first.get(index as i64), continuations)
            };
            Ok(prompts.iter().enumerate().map(of_prompt).collect())
        })
    }
}

/// A computed prompt.
struct Prompt<'a> {
    policy: &'a Policy,
    cache: &'a Prompts,
    index: usize,
    length: usize,
}

impl Prompt<'_> {
    /// `first`: log-probabilities of the token after the prompt, \[vocabulary\].
    fn logprobs(&self, first: &Tensor, continuations: &Continuations) -> Vec<f64> {
        let device = self.policy.device();
        let heads: Vec<i64> = continuations.tokens.iter().map(|tokens| i64::from(tokens[0])).collect();
        let heads = first.index_select(0, &Tensor::from_slice(&heads).to_device(device));
        let mut sums = numbers(&heads);
        for (&length, indices) in continuations.by_length.range(2..) {
            for chunk in indices.chunks(self.chunk(length - 1)) {
                let tokens: Vec<&[u32]> =
                    chunk.iter().map(|&index| continuations.tokens[index].as_slice()).collect();
                for (index, sum) in chunk.iter().zip(self.rest(&tokens)) {
                    sums[*index] += sum;
                }
            }
        }
        sums
    }

    /// Returns the number of continuations with this number of rows in one chunk.
    fn chunk(&self, rows: usize) -> usize {
        let heads = self.policy.config().num_attention_heads as usize;
        let scores = rows * heads * (self.length + rows);
        (CHUNK_SCORES / scores.max(1)).min(CHUNK_ROWS / rows).max(1)
    }

    /// Returns the log-probability of all tokens except the first of continuations of equal length.
    fn rest(&self, continuations: &[&[u32]]) -> Vec<f64> {
        let (config, device) = (self.policy.config(), self.policy.device());
        let (count, rows) = (continuations.len() as i64, continuations[0].len() as i64 - 1);
        let on_device = |tokens: &dyn Fn(&[u32]) -> Vec<u32>| {
            let ids: Vec<i64> = continuations.iter().flat_map(|ids| tokens(ids)).map(i64::from).collect();
            Tensor::from_slice(&ids).to_device(device)
        };
        let inputs = on_device(&|tokens| tokens[..tokens.len() - 1].to_vec());
        let targets = on_device(&|tokens| tokens[1..].to_vec());
        let start = self.length as i64;
        let positions = Tensor::arange_start(start, start + rows, (Kind::Int64, device)).repeat([count]);
        let mut arrangement = Following {
            prompt: self,
            causal: causal_bias(rows, config.queries_per_key(), self.policy.precision().kind(), device),
            count,
        };
        let x = self.policy.trunk(&inputs, &self.policy.rows(&positions), &mut arrangement);
        let logprobs = self.policy.target_logprobs(&x, targets).view([count, rows]);
        numbers(&logprobs.sum_dim_intlist(-1, false, Kind::Double))
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_kind(Kind::Double).to_device(Device::Cpu);
    Vec::try_from(tensor).expect("a vector of numbers")
}

/// The arrangement of continuations of equal length after one prompt.
struct Following<'a> {
    prompt: &'a Prompt<'a>,
    /// \[1, rows of a continuation · queries per key, rows of a continuation\]
    causal: Tensor,
    /// Number of continuations.
    count: i64,
}

impl Arrangement for Following<'_> {
    fn attend(&mut self, layer: usize, heads: &Heads) -> Tensor {
        let Heads { key, value, .. } = heads;
        let split = |x: &Tensor| {
            let [rows, heads, d] = x.size()[..] else { unreachable!("three dimensions") };
            x.reshape([self.count, rows / self.count, heads, d])
        };
        let key_heads = key.size()[1];
        let own = KeyValue { key: fold_keys(&split(key), 1), value: fold_keys(&split(value), 1) };
        let Prompt { cache, index, length, .. } = *self.prompt;
        let before = cache.start_of(layer, index, length);
        let before = KeyValue { key: before.key.contiguous(), value: before.value.contiguous() };
        let query = fold_queries(&split(&heads.scaled_query()), 1, key_heads);
        let shared = Shared { prompts: &before, bias: None };
        let attended = attend(&query, Some(shared), &own, Some(&self.causal));
        let rows = key.size()[0];
        unfold(&attended, rows / self.count).reshape([rows, -1])
    }
}
