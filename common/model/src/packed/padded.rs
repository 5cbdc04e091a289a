//! Padding of a packed batch, for attention with materialised scores.

use tch::{Device, Kind, Tensor};

use crate::attention::{
    Heads, KeyValue, MASKED, Shared, attend, causal_bias, fold_keys, fold_queries, unfold,
};
use crate::config::Config;
use crate::layers::select_rows;
use crate::policy::Policy;

/// A packed batch with its sequences padded to equal lengths, for attention with materialised scores.
#[derive(Debug)]
pub(super) struct Padded {
    key_heads: i64,
    prompts: Sequences,
    prompt_bias: Option<Tensor>,
    completions: Option<Sequences>,
}

impl Padded {
    pub(super) fn new(prompt_lengths: &[usize], completion_lengths: &[usize], policy: &Policy) -> Self {
        let (config, kind, device) = (policy.config(), policy.precision().kind(), policy.device());
        let input_lengths: Vec<_> =
            completion_lengths.iter().map(|length| length.saturating_sub(1)).collect();
        let completions = Sequences::new(&input_lengths, config, kind, device);
        Self {
            key_heads: config.num_key_value_heads,
            prompts: Sequences::new(prompt_lengths, config, kind, device),
            prompt_bias: key_bias(prompt_lengths, config.num_key_value_heads, kind, device),
            completions: (completions.rows > 0).then_some(completions),
        }
    }

    pub(super) fn attend(&self, heads: &Heads) -> Tensor {
        let (count, key_heads) = (self.prompts.count, self.key_heads);
        let (query, key, value) = (&heads.scaled_query(), &heads.key, &heads.value);
        let part = |sequences: &Sequences, first: i64, x: &Tensor| {
            sequences.pad(&x.narrow(0, first, sequences.rows))
        };
        let from_prompts = |x: &Tensor| part(&self.prompts, 0, x);
        let prompts = KeyValue {
            key: fold_keys(&from_prompts(key), count),
            value: fold_keys(&from_prompts(value), count),
        };
        let query_of_prompts = fold_queries(&from_prompts(query), count, key_heads);
        let attended = attend(&query_of_prompts, None, &prompts, Some(&self.prompts.causal));
        let output = self.prompts.unpad(&unfold(&attended, self.prompts.width));
        let Some(completions) = &self.completions else { return output };

        // In [prompts, heads, 1 sequence, length, D] the sequence dimension is removed: the prompt is shared.
        let prompts = KeyValue { key: prompts.key.squeeze_dim(2), value: prompts.value.squeeze_dim(2) };
        let from_completions = |x: &Tensor| part(completions, self.prompts.rows, x);
        let own = KeyValue {
            key: fold_keys(&from_completions(key), count),
            value: fold_keys(&from_completions(value), count),
        };
        let shared = Shared { prompts: &prompts, bias: self.prompt_bias.as_ref() };
        let query = fold_queries(&from_completions(query), count, key_heads);
        let attended = attend(&query, Some(shared), &own, Some(&completions.causal));
        let attended = completions.unpad(&unfold(&attended, completions.width));
        Tensor::cat(&[output, attended], 0)
    }
}

/// Adjacent sequences in flat rows, and their padding for attention.
#[derive(Debug)]
struct Sequences {
    count: i64,
    rows: i64,
    width: i64,
    /// Row of each padded cell \[count · width\] and cell of each row \[rows\]; `None` without padding.
    indices: Option<(Tensor, Tensor)>,
    /// \[1, width · queries per key, width\]
    causal: Tensor,
}

impl Sequences {
    fn new(lengths: &[usize], config: &Config, kind: Kind, device: Device) -> Self {
        let width = lengths.iter().copied().max().unwrap_or(0);
        let rows = lengths.iter().sum::<usize>();
        let indices = (rows != width * lengths.len()).then(|| {
            let (mut row_of_cell, mut cell_of_row) = (Vec::new(), Vec::new());
            for (sequence, length) in lengths.iter().enumerate() {
                let first_row = cell_of_row.len() as i64;
                cell_of_row.extend((0..*length).map(|token| (sequence * width + token) as i64));
                row_of_cell.extend(first_row..first_row + *length as i64);
                // Padding repeats some row: finite, masked for every row that is read, and without gradient.
                row_of_cell.resize((sequence + 1) * width, 0);
            }
            let on_device = |index: &[i64]| Tensor::from_slice(index).to_device(device);
            (on_device(&row_of_cell), on_device(&cell_of_row))
        });
        Self {
            count: lengths.len() as i64,
            rows: rows as i64,
            width: width as i64,
            indices,
            causal: causal_bias(width as i64, config.queries_per_key(), kind, device),
        }
    }

    /// \[rows, heads, D\] to \[count, width, heads, D\].
    fn pad(&self, x: &Tensor) -> Tensor {
        let [_, heads, d] = x.size()[..] else { unreachable!("rows of heads have three dimensions") };
        let shape = [self.count, self.width, heads, d];
        match &self.indices {
            Some((row_of_cell, _)) => {
                select_rows(&x.reshape([self.rows, heads * d]), row_of_cell).view(shape)
            }
            None => x.view(shape),
        }
    }

    /// \[count, width, features\] to \[rows, features\].
    fn unpad(&self, x: &Tensor) -> Tensor {
        let x = x.view([self.count * self.width, -1]);
        match &self.indices {
            Some((_, cell_of_row)) => select_rows(&x, cell_of_row),
            None => x,
        }
    }
}

/// \[sequences · heads, 1, longest\]: masks the padding of sequences of these lengths for queries that attend to all
/// keys; `None` without padding.
pub(crate) fn key_bias(lengths: &[usize], heads: i64, kind: Kind, device: Device) -> Option<Tensor> {
    let width = lengths.iter().copied().max().unwrap_or(0) as i64;
    let lengths: Vec<_> = lengths.iter().map(|length| *length as i64).collect();
    if lengths.iter().all(|length| *length == width) {
        return None;
    }
    let lengths = Tensor::from_slice(&lengths).to_device(device).repeat_interleave_self_int(heads, 0, None);
    let padding = Tensor::arange(width, (Kind::Int64, device)).ge_tensor(&lengths.unsqueeze(-1));
    Some((padding.to_kind(kind) * MASKED).unsqueeze(1))
}
