//! Keys and values during decoding: those of the prompts, shared, and those of each completion.
//!
//! All completions are at the same step, so that one length applies to all. A cache belongs to the weights that
//! filled it and lives no longer than one call of [`generate`](crate::generate()).

use tch::Tensor;

use crate::attention::{Arrangement, KeyValue, Shared, attend, fold_keys, fold_queries, unfold};

/// Tokens per completion in the initial buffers; they double when full.
const FIRST_CAPACITY: i64 = 64;

#[derive(Debug)]
pub(crate) struct Cache {
    /// For each layer \[prompts, key heads, prompt length, D\].
    prompts: Vec<KeyValue>,
    /// \[prompts · key heads, 1, prompt length\]; `None` if all prompts have the same length.
    prompt_bias: Option<Tensor>,
    /// For each layer \[prompts, key heads, group size, capacity, D\].
    own: Vec<KeyValue>,
    /// Number of tokens of each completion in the buffers.
    length: i64,
}

impl Cache {
    /// Creates an empty cache after the keys and values of prompts.
    pub(crate) fn new(prompts: Vec<KeyValue>, prompt_bias: Option<Tensor>, group_size: i64) -> Self {
        let buffer = |prompts: &Tensor| {
            let [b, h, _, d] = prompts.size()[..] else { unreachable!("prompts have four dimensions") };
            Tensor::empty([b, h, group_size, FIRST_CAPACITY, d], (prompts.kind(), prompts.device()))
        };
        let own = prompts
            .iter()
            .map(|layer| KeyValue { key: buffer(&layer.key), value: buffer(&layer.value) })
            .collect();
        Self { prompts, prompt_bias, own, length: 0 }
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
        if let Some(bias) = &mut self.prompt_bias {
            let heads = self.prompts[0].key.size()[1];
            let rows = bias.view([-1, heads, bias.size()[2]]).index_select(0, prompts);
            *bias = rows.view([kept_prompts * heads, 1, -1]);
        }
        for KeyValue { key, value } in &mut self.prompts {
            (*key, *value) = (key.index_select(0, prompts), value.index_select(0, prompts));
        }
        for KeyValue { key, value } in &mut self.own {
            (*key, *value) = (keep_own(key), keep_own(value));
        }
    }
}

impl Arrangement for Cache {
    fn attend(&mut self, layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let prompts = &self.prompts[layer];
        let (count, heads) = (prompts.key.size()[0], prompts.key.size()[1]);
        let own = &self.own[layer];
        for (buffer, new) in [(&own.key, key), (&own.value, value)] {
            buffer.narrow(3, self.length - 1, 1).copy_(&fold_keys(&new.unsqueeze(1), count));
        }
        let seen =
            KeyValue { key: own.key.narrow(3, 0, self.length), value: own.value.narrow(3, 0, self.length) };
        let shared = Shared { prompts, bias: self.prompt_bias.as_ref() };
        let attended = attend(&fold_queries(&query.unsqueeze(1), count, heads), Some(shared), &seen, None);
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
        let prompts = KeyValue { key: numbered(&[b, h, 7, d]), value: numbered(&[b, h, 7, d]) };
        let mut cache = Cache::new(vec![prompts], None, g);
        for _ in 0..FIRST_CAPACITY {
            cache.advance();
        }
        let written = numbered(&[b, h, g, FIRST_CAPACITY, d]);
        cache.own[0].key.copy_(&written);
        cache.advance();
        assert!(cache.own[0].key.size()[3] > FIRST_CAPACITY);
        assert_eq!(cache.own[0].key.narrow(3, 0, FIRST_CAPACITY), written);

        cache.keep(&Tensor::from_slice(&[0_i64, 2]), &Tensor::from_slice(&[1_i64, 3, 8, 11]));
        assert_eq!(cache.prompts[0].key.get(1), numbered(&[b, h, 7, d]).get(2));
        let kept = cache.own[0].key.narrow(3, 0, FIRST_CAPACITY);
        assert_eq!(kept.get(1).select(1, 0), written.get(2).select(1, 0));
        assert_eq!(kept.get(0).select(1, 1), written.get(0).select(1, 3));
    }
}
