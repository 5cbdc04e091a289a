//! Keys and values during decoding: those of the prompts, shared, and those of each completion.
//!
//! All completions are at the same step, so that one length applies to all. A cache belongs to the weights that
//! filled it and lives no longer than one call of [`generate`](crate::generate()).

use podium_torch_shim::Cached;
use tch::Tensor;

use crate::attention::{Arrangement, Heads, KeyValue, Shared, attend, fold_keys, fold_queries, unfold};
use crate::options::AttentionKernel;
use crate::packed::key_bias;
use crate::policy::Policy;
use crate::shim::computed;

/// Tokens per completion in the initial buffers; they double when full.
const FIRST_CAPACITY: i64 = podium_memory::FIRST_CAPACITY as i64;

/// Sizes of heads and numbers of positions that the fused kernel supports are multiples of this.
const FUSED_MULTIPLE: i64 = 16;

/// Keys and values of prompts, padded to the longest.
#[derive(Debug)]
pub(crate) struct Prompts {
    /// For each layer \[prompts, key heads, positions, D\].
    layers: Vec<KeyValue>,
    lengths: Vec<i64>,
    /// \[prompts · key heads, 1, positions\]; `None` if all prompts have the same length, and for the fused kernel.
    bias: Option<Tensor>,
    /// Whether decoding uses the kernel that computes all of attention in one pass.
    fused: bool,
}

impl Prompts {
    /// Reserves space for prompts of these lengths.
    pub(crate) fn new(lengths: &[usize], policy: &Policy) -> Self {
        let (config, kind, device) = (policy.config(), policy.precision().kind(), policy.device());
        let flash = policy.attention_kernel() == AttentionKernel::Flash;
        let fused = policy.is_fused() && flash && config.head_dim % FUSED_MULTIPLE == 0;
        let longest = lengths.iter().copied().max().unwrap_or(0) as i64;
        let positions =
            if fused { (longest + FUSED_MULTIPLE - 1) / FUSED_MULTIPLE * FUSED_MULTIPLE } else { longest };
        let shape = [lengths.len() as i64, config.num_key_value_heads, positions, config.head_dim];
        // Padding has no weight, but must be finite.
        let buffer = || Tensor::zeros(shape, (kind, device));
        Self {
            layers: (0..config.num_hidden_layers)
                .map(|_| KeyValue { key: buffer(), value: buffer() })
                .collect(),
            lengths: lengths.iter().map(|length| *length as i64).collect(),
            bias: if fused { None } else { key_bias(lengths, config.num_key_value_heads, kind, device) },
            fused,
        }
    }

    /// Stores the keys and values of tokens of one prompt from `token` on, \[tokens, key heads, D\].
    pub(crate) fn store(&self, layer: usize, (prompt, token): (usize, usize), new: &KeyValue) {
        let KeyValue { key, value } = &self.layers[layer];
        for (buffer, new) in [(key, &new.key), (value, &new.value)] {
            let mut destination = buffer.get(prompt as i64).narrow(1, token as i64, new.size()[0]);
            destination.copy_(&new.transpose(0, 1));
        }
    }

    /// Returns the first `tokens` keys and values of one prompt, \[1, key heads, tokens, D\].
    pub(crate) fn start_of(&self, layer: usize, prompt: usize, tokens: usize) -> KeyValue {
        let part = |buffer: &Tensor| buffer.narrow(0, prompt as i64, 1).narrow(2, 0, tokens as i64);
        let KeyValue { key, value } = &self.layers[layer];
        KeyValue { key: part(key), value: part(value) }
    }
}

#[derive(Debug)]
pub(crate) struct Cache {
    /// For the fused kernel, keys are \[prompts, key heads, D, positions\].
    prompts: Prompts,
    /// For each layer \[prompts, key heads, completions, capacity, D\]; for the fused kernel, keys are \[prompts, key heads,
    /// completions, D, capacity\].
    own: Vec<KeyValue>,
    /// Number of tokens of each completion in the buffers.
    length: i64,
}

impl Cache {
    /// Creates an empty cache after the keys and values of prompts.
    pub(crate) fn new(mut prompts: Prompts, group_size: i64) -> Self {
        let fused = prompts.fused;
        let own = |KeyValue { key, value }: &KeyValue| {
            let [b, h, _, d] = value.size()[..] else { unreachable!("prompts have four dimensions") };
            let buffer =
                |rows, columns| Tensor::empty([b, h, group_size, rows, columns], (key.kind(), key.device()));
            KeyValue {
                key: if fused { buffer(d, FIRST_CAPACITY) } else { buffer(FIRST_CAPACITY, d) },
                value: buffer(FIRST_CAPACITY, d),
            }
        };
        let own = prompts.layers.iter().map(own).collect();
        if fused {
            for KeyValue { key, .. } in &mut prompts.layers {
                *key = key.transpose(2, 3).contiguous();
            }
        }
        Self { prompts, own, length: 0 }
    }

    /// Reserves space for the next token of each completion; call it before every forward.
    pub(crate) fn advance(&mut self) {
        let capacity = self.own[0].value.size()[3];
        if self.length == capacity {
            let doubled =
                |buffer: &Tensor, dimension| Tensor::cat(&[buffer, &buffer.empty_like()], dimension);
            for KeyValue { key, value } in &mut self.own {
                *key = doubled(key, if self.prompts.fused { 4 } else { 3 });
                *value = doubled(value, 3);
            }
        }
        self.length += 1;
    }

    /// Retains some completions. `prompts`: index of the retained prompts; `completions`: index in (prompt, completion)
    /// order of the retained completions, the same number for each prompt.
    pub(crate) fn keep(&mut self, prompts: &[usize], completions: &[usize]) {
        let (kept_prompts, group_size) = (prompts.len() as i64, (completions.len() / prompts.len()) as i64);
        self.prompts.lengths = prompts.iter().map(|prompt| self.prompts.lengths[*prompt]).collect();
        let device = self.own[0].key.device();
        let index = |numbers: &[usize]| {
            let numbers: Vec<_> = numbers.iter().map(|number| *number as i64).collect();
            Tensor::from_slice(&numbers).to_device(device)
        };
        let (prompts, completions) = (index(prompts), index(completions));
        let keep_own = |buffer: &Tensor| {
            let [_, h, _, rows, columns] = buffer.size()[..] else { unreachable!("five dimensions") };
            let sequences = buffer.permute([0, 2, 1, 3, 4]).reshape([-1, h, rows, columns]);
            let kept = sequences.index_select(0, &completions);
            kept.view([kept_prompts, group_size, h, rows, columns]).permute([0, 2, 1, 3, 4]).contiguous()
        };
        if let Some(bias) = &mut self.prompts.bias {
            let heads = self.prompts.layers[0].key.size()[1];
            let rows = bias.view([-1, heads, bias.size()[2]]).index_select(0, &prompts);
            *bias = rows.view([kept_prompts * heads, 1, -1]);
        }
        for KeyValue { key, value } in &mut self.prompts.layers {
            (*key, *value) = (key.index_select(0, &prompts), value.index_select(0, &prompts));
        }
        for KeyValue { key, value } in &mut self.own {
            (*key, *value) = (keep_own(key), keep_own(value));
        }
    }

    /// Attention by operations of libtorch.
    fn attend(&self, layer: usize, heads: &Heads) -> Tensor {
        let prompts = &self.prompts.layers[layer];
        let (count, key_heads) = (prompts.key.size()[0], prompts.key.size()[1]);
        let own = &self.own[layer];
        for (buffer, new) in [(&own.key, &heads.key), (&own.value, &heads.value)] {
            buffer.narrow(3, self.length - 1, 1).copy_(&fold_keys(&new.unsqueeze(1), count));
        }
        let seen =
            KeyValue { key: own.key.narrow(3, 0, self.length), value: own.value.narrow(3, 0, self.length) };
        let shared = Shared { prompts, bias: self.prompts.bias.as_ref() };
        let query = fold_queries(&heads.scaled_query().unsqueeze(1), count, key_heads);
        let attended = attend(&query, Some(shared), &seen, None);
        unfold(&attended, 1).squeeze_dim(1)
    }
}

impl Arrangement for Cache {
    fn attend(&mut self, layer: usize, heads: &Heads) -> Tensor {
        if !self.prompts.fused {
            return Self::attend(self, layer, heads);
        }
        let (prompts, own) = (&self.prompts.layers[layer], &self.own[layer]);
        let cached = Cached {
            prompt_key: &prompts.key,
            prompt_value: &prompts.value,
            prompt_lengths: &self.prompts.lengths,
            own_key: &own.key,
            own_value: &own.value,
            length: self.length,
        };
        let Heads { query, key, value, scale } = heads;
        let new = podium_torch_shim::Heads { query, key, value };
        computed(podium_torch_shim::cached_attention(cached, new, *scale))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn numbered(size: &[i64]) -> Tensor {
        let count = size.iter().product::<i64>();
        Tensor::arange(count, (Kind::Float, Device::Cpu)).view(size)
    }

    #[test]
    fn growing_and_dropping_preserve_the_contents() {
        let (b, h, g, d) = (3, 2, 4, 5);
        let layer = KeyValue { key: numbered(&[b, h, 7, d]), value: numbered(&[b, h, 7, d]) };
        let prompts = Prompts { layers: vec![layer], lengths: vec![7; 3], bias: None, fused: false };
        let mut cache = Cache::new(prompts, g);
        for _ in 0..FIRST_CAPACITY {
            cache.advance();
        }
        let written = numbered(&[b, h, g, FIRST_CAPACITY, d]);
        cache.own[0].key.copy_(&written);
        cache.advance();
        assert!(cache.own[0].key.size()[3] > FIRST_CAPACITY);
        assert_eq!(cache.own[0].key.narrow(3, 0, FIRST_CAPACITY), written);

        cache.keep(&[0, 2], &[1, 3, 8, 11]);
        assert_eq!(cache.prompts.layers[0].key.get(1), numbered(&[b, h, 7, d]).get(2));
        let kept = cache.own[0].key.narrow(3, 0, FIRST_CAPACITY);
        assert_eq!(kept.get(1).select(1, 0), written.get(2).select(1, 0));
        assert_eq!(kept.get(0).select(1, 1), written.get(0).select(1, 3));
    }
}
