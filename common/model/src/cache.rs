//! Keys and values during decoding: those of the prompts, shared, and those of each completion.
//!
//! All completions are at the same step, so that one length applies to all. A cache belongs to the weights that
//! filled it and lives no longer than one call of [`generate`](crate::generate()).

use tch::{Device, Kind, Tensor};

use crate::attention::{Arrangement, Heads, KeyValue, Shared, attend, fold_keys, fold_queries, unfold};
use crate::config::Config;
use crate::packed::key_bias;

/// Tokens per completion in the initial buffers; they double when full.
const FIRST_CAPACITY: i64 = podium_memory::FIRST_CAPACITY as i64;

/// Keys and values of prompts, padded to the longest.
#[derive(Debug)]
pub(crate) struct Prompts {
    /// For each layer \[prompts, key heads, longest prompt, D\].
    layers: Vec<KeyValue>,
    /// \[prompts · key heads, 1, longest prompt\]; `None` if all prompts have the same length.
    bias: Option<Tensor>,
}

impl Prompts {
    /// Reserves space for prompts of these lengths.
    pub(crate) fn new(lengths: &[usize], config: &Config, kind: Kind, device: Device) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0) as i64;
        let shape = [lengths.len() as i64, config.num_key_value_heads, longest, config.head_dim];
        // Padding has no weight, but must be finite.
        let buffer = || Tensor::zeros(shape, (kind, device));
        Self {
            layers: (0..config.num_hidden_layers)
                .map(|_| KeyValue { key: buffer(), value: buffer() })
                .collect(),
            bias: key_bias(lengths, config.num_key_value_heads, kind, device),
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
    prompts: Prompts,
    /// For each layer \[prompts, key heads, group size, capacity, D\].
    own: Vec<KeyValue>,
    /// Number of tokens of each completion in the buffers.
    length: i64,
}

impl Cache {
    /// Creates an empty cache after the keys and values of prompts.
    pub(crate) fn new(prompts: Prompts, group_size: i64) -> Self {
        let buffer = |prompts: &Tensor| {
            let [b, h, _, d] = prompts.size()[..] else { unreachable!("prompts have four dimensions") };
            Tensor::empty([b, h, group_size, FIRST_CAPACITY, d], (prompts.kind(), prompts.device()))
        };
        let own = prompts
            .layers
            .iter()
            .map(|layer| KeyValue { key: buffer(&layer.key), value: buffer(&layer.value) })
            .collect();
        Self { prompts, own, length: 0 }
    }

    /// Reserves space for the next token of each completion; call it before every forward.
    pub(crate) fn advance(&mut self) {
        let capacity = self.own[0].key.size()[3];
        if self.length == capacity {
            let doubled = |buffer: &Tensor| Tensor::cat(&[buffer, &buffer.empty_like()], 3);
            for KeyValue { key, value } in &mut self.own {
                (*key, *value) = (doubled(key), doubled(value));
            }
        }
        self.length += 1;
    }

    /// Retains some completions. `prompts` \[B'\]: the retained prompts; `completions` \[B' · G'\]: index in (prompt,
    /// completion) order of the retained completions, the same number for each prompt.
    pub(crate) fn keep(&mut self, prompts: &Tensor, completions: &Tensor) {
        let kept_prompts = prompts.size()[0];
        let group_size = completions.size()[0] / kept_prompts;
        let keep_own = |buffer: &Tensor| {
            let [_, h, _, capacity, d] = buffer.size()[..] else { unreachable!("five dimensions") };
            let sequences = buffer.permute([0, 2, 1, 3, 4]).reshape([-1, h, capacity, d]);
            let kept = sequences.index_select(0, completions);
            kept.view([kept_prompts, group_size, h, capacity, d]).permute([0, 2, 1, 3, 4]).contiguous()
        };
        if let Some(bias) = &mut self.prompts.bias {
            let heads = self.prompts.layers[0].key.size()[1];
            let rows = bias.view([-1, heads, bias.size()[2]]).index_select(0, prompts);
            *bias = rows.view([kept_prompts * heads, 1, -1]);
        }
        for KeyValue { key, value } in &mut self.prompts.layers {
            (*key, *value) = (key.index_select(0, prompts), value.index_select(0, prompts));
        }
        for KeyValue { key, value } in &mut self.own {
            (*key, *value) = (keep_own(key), keep_own(value));
        }
    }
}

impl Arrangement for Cache {
    fn attend(&mut self, layer: usize, heads: &Heads) -> Tensor {
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
        let mut cache = Cache::new(Prompts { layers: vec![layer], bias: None }, g);
        for _ in 0..FIRST_CAPACITY {
            cache.advance();
        }
        let written = numbered(&[b, h, g, FIRST_CAPACITY, d]);
        cache.own[0].key.copy_(&written);
        cache.advance();
        assert!(cache.own[0].key.size()[3] > FIRST_CAPACITY);
        assert_eq!(cache.own[0].key.narrow(3, 0, FIRST_CAPACITY), written);

        cache.keep(&Tensor::from_slice(&[0_i64, 2]), &Tensor::from_slice(&[1_i64, 3, 8, 11]));
        assert_eq!(cache.prompts.layers[0].key.get(1), numbered(&[b, h, 7, d]).get(2));
        let kept = cache.own[0].key.narrow(3, 0, FIRST_CAPACITY);
        assert_eq!(kept.get(1).select(1, 0), written.get(2).select(1, 0));
        assert_eq!(kept.get(0).select(1, 1), written.get(0).select(1, 3));
    }
}
