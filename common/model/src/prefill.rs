//! Computation of prompts before decoding, in chunks of a token budget.
//!
//! The cuts are a function of the prompts' lengths and of the budget alone, so that a repeated lease has the same bits.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::attention::{
    Arrangement, Heads, KeyValue, Shared, attend, causal_bias, fold_keys, fold_queries, unfold,
};
use crate::cache::Prompts;
use crate::packed::{self, GroupTokens, Packed, PackedArrangement};
use crate::policy::Policy;

/// Tokens that are computed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Chunk {
    /// Whole prompts.
    Whole(Range<usize>),
    /// Some tokens of a prompt that is longer than the budget.
    Part { prompt: usize, tokens: Range<usize> },
}

/// Computes the prompts, which fit the policy. Returns their keys and values, and the logits after each prompt,
/// \[prompts, vocabulary\].
pub(crate) fn prefill(
    policy: &Policy,
    prompts: &[Vec<u32>],
    budget: usize,
    temperature: f64,
) -> Result<(Prompts, Tensor), packed::Error> {
    let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let cache = Prompts::new(&lengths, policy);
    let mut last = Vec::new();
    for chunk in chunks(&lengths, budget) {
        match chunk {
            Chunk::Whole(range) => last.push(whole(policy, &prompts[range.clone()], range.start, &cache)?),
            Chunk::Part { prompt, tokens } => {
                let end = part(policy, &prompts[prompt][tokens.clone()], (prompt, tokens.start), &cache);
                if tokens.end == lengths[prompt] {
                    last.push(end);
                }
            }
        }
    }
    let logits = policy.next_logits(&Tensor::cat(&last, 0), temperature);
    Ok((cache, logits))
}

/// Cuts prompts of these lengths into chunks: adjacent prompts, each counted with the length of the longest of them, or
/// parts of a longer prompt.
fn chunks(lengths: &[usize], budget: usize) -> Vec<Chunk> {
    let (mut chunks, mut first) = (Vec::new(), 0);
    while first < lengths.len() {
        let (mut end, mut longest) = (first, 0);
        while end < lengths.len() && lengths[end].max(longest) * (end + 1 - first) <= budget {
            longest = longest.max(lengths[end]);
            end += 1;
        }
        if end > first {
            chunks.push(Chunk::Whole(first..end));
        } else {
            let length = lengths[first];
            let part =
                |start| Chunk::Part { prompt: first, tokens: start..length.min(start + budget.max(1)) };
            chunks.extend((0..length).step_by(budget.max(1)).map(part));
            end += 1;
        }
        first = end;
    }
    chunks
}

/// Packs prompts without completions.
pub(crate) fn packed_prompts(prompts: &[Vec<u32>]) -> Result<Packed, packed::Error> {
    let groups = prompts.iter().map(|prompt| GroupTokens { prompt, completions: Vec::new() });
    Packed::new(&groups.collect::<Vec<_>>())
}

/// Computes whole prompts, of which `first` is the first of the batch. Returns the last block's output at the last token
/// of each, \[prompts, hidden\].
fn whole(
    policy: &Policy,
    prompts: &[Vec<u32>],
    first: usize,
    cache: &Prompts,
) -> Result<Tensor, packed::Error> {
    let (batch, device) = (packed_prompts(prompts)?, policy.device());
    let packed = batch.arrangement(policy);
    let mut arrangement = Whole { packed, first, cache };
    let rows = policy.rows(&batch.positions(device)).with_outputs(batch.outputs(device));
    Ok(policy.trunk(&batch.tokens(device), &rows, &mut arrangement))
}

/// Computes tokens of one prompt after those that are cached. `(prompt, start)`: the prompt's index and the number of
/// its tokens in the cache. Returns the last block's output at the last token, \[1, hidden\].
fn part(policy: &Policy, tokens: &[u32], (prompt, start): (usize, usize), cache: &Prompts) -> Tensor {
    let (config, device, count) = (policy.config(), policy.device(), tokens.len() as i64);
    let causal = causal_bias(count, config.queries_per_key(), policy.precision().kind(), device);
    let mut arrangement = Part { causal, prompt, start, heads: config.num_key_value_heads, cache };
    let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
    let positions = Tensor::arange_start(start as i64, start as i64 + count, (Kind::Int64, device));
    let ids = Tensor::from_slice(&ids).to_device(device);
    policy.trunk(&ids, &policy.rows(&positions), &mut arrangement).narrow(0, count - 1, 1).copy()
}

/// The arrangement of whole prompts, which stores their keys and values.
struct Whole<'a> {
    packed: PackedArrangement,
    first: usize,
    cache: &'a Prompts,
}

impl Arrangement for Whole<'_> {
    fn attend(&mut self, layer: usize, heads: &Heads) -> Tensor {
        let mut first_row = 0;
        for (prompt, length) in (self.first..).zip(self.packed.prompt_lengths()) {
            let rows = |x: &Tensor| x.narrow(0, first_row, *length);
            self.cache.store(
                layer,
                (prompt, 0),
                &KeyValue { key: rows(&heads.key), value: rows(&heads.value) },
            );
            first_row += length;
        }
        self.packed.attend(layer, heads)
    }
}

/// The arrangement of a part of one prompt, which attends to the cached tokens before it.
struct Part<'a> {
    /// \[1, tokens · queries per key, tokens\]
    causal: Tensor,
    prompt: usize,
    start: usize,
    heads: i64,
    cache: &'a Prompts,
}

impl Arrangement for Part<'_> {
    fn attend(&mut self, layer: usize, heads: &Heads) -> Tensor {
        let Heads { key, value, .. } = heads;
        let folded = |x: &Tensor| fold_keys(&x.unsqueeze(0), 1);
        let own = KeyValue { key: folded(key), value: folded(value) };
        let before = self.cache.start_of(layer, self.prompt, self.start);
        let shared = (self.start > 0).then_some(Shared { prompts: &before, bias: None });
        let query = fold_queries(&heads.scaled_query().unsqueeze(0), 1, self.heads);
        let attended = attend(&query, shared, &own, Some(&self.causal));
        let new = KeyValue { key: key.shallow_clone(), value: value.shallow_clone() };
        self.cache.store(layer, (self.prompt, self.start), &new);
        unfold(&attended, key.size()[0]).squeeze_dim(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(prompts: Range<usize>) -> Chunk {
        Chunk::Whole(prompts)
    }

    fn part(prompt: usize, tokens: Range<usize>) -> Chunk {
        Chunk::Part { prompt, tokens }
    }

    #[test]
    fn chunks_stay_within_the_budget() {
        assert_eq!(chunks(&[3, 4, 2], usize::MAX), [whole(0..3)]);
        assert_eq!(chunks(&[3, 4, 2], 12), [whole(0..3)]);
        assert_eq!(
            chunks(&[3, 4, 2], 11),
            [whole(0..2), whole(2..3)],
            "three prompts of four tokens are too many"
        );
        assert_eq!(chunks(&[9, 2, 2, 2], 10), [whole(0..1), whole(1..4)]);
        assert_eq!(
            chunks(&[2, 9, 2], 4),
            [whole(0..1), part(1, 0..4), part(1, 4..8), part(1, 8..9), whole(2..3)]
        );
        assert_eq!(chunks(&[4], 4), [whole(0..1)]);
        assert_eq!(chunks(&[2], 0), [part(0, 0..1), part(0, 1..2)]);
        assert!(chunks(&[], 4).is_empty());
    }
}
