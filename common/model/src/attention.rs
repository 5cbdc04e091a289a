//! Attention: the layer, and the function shared by plain forward, packed forward and cached decoding.
//!
//! A query attends to the keys of its own sequence and, if it belongs to a completion, to those of its prompt, which
//! all completions of the prompt share. The shared keys are never copied for each completion: the completions of a
//! prompt and the query heads of a key head are folded into the rows of one matrix product.
//!
//! The mapping of flat rows to sequences belongs to [`Arrangement`].

use podium_torch_shim::HeadNorms;
use tch::{Device, Kind, Tensor};

use crate::config::Config;
use crate::joint::{self, Joint};
use crate::layers::{Linear, Outputs, RmsNorm, Rows, Weights};

/// Added to the score of a masked key. Finite, so that no row can become NaN, and far below any score.
pub(crate) const MASKED: f64 = -1e30;

/// Queries, keys and values of the rows of a forward.
#[derive(Debug)]
pub(crate) struct Heads {
    /// \[rows, query heads, D\]; in the last block of a forward with [`Outputs`](crate::layers::Outputs), of those rows.
    pub(crate) query: Tensor,
    /// \[rows, key heads, D\]
    pub(crate) key: Tensor,
    /// \[rows, key heads, D\]
    pub(crate) value: Tensor,
    /// Factor of the scores.
    pub(crate) scale: f64,
}

impl Heads {
    /// Returns the queries with the factor of the scores applied.
    pub(crate) fn scaled_query(&self) -> Tensor {
        &self.query * self.scale
    }
}

/// The largest head that is normed and rotated in one pass.
const LARGEST_HEAD: i64 = 1024;

/// Mapping of the rows of one forward to sequences, and the keys that each row attends to.
pub(crate) trait Arrangement {
    /// Attention of all queries. Returns \[rows of the queries, query heads · D\].
    fn attend(&mut self, layer: usize, heads: &Heads) -> Tensor;
}

/// Keys and values of some sequences.
#[derive(Debug)]
pub(crate) struct KeyValue {
    pub(crate) key: Tensor,
    pub(crate) value: Tensor,
}

/// Keys and values of prompts, each shared by all completions of its prompt.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    /// \[prompts, key heads, prompt length, D\]
    pub(crate) prompts: &'a KeyValue,
    /// \[prompts · key heads, 1, prompt length\]: masks the padding of short prompts. `None` without padding.
    pub(crate) bias: Option<&'a Tensor>,
}

/// Attention of folded queries \[B prompts, H key heads, G sequences, R rows, D\] to the keys of their own sequence
/// \[B, H, G, length, D\] and to those of their prompt, under one float32 softmax. Returns \[B, H, G, R, D\].
///
/// `own_bias` \[1, R, length\] masks the own keys of each row; `None` masks no key.
pub(crate) fn attend(
    query: &Tensor,
    shared: Option<Shared>,
    own: &KeyValue,
    own_bias: Option<&Tensor>,
) -> Tensor {
    let [b, h, g, r, d] = query.size()[..] else { unreachable!("queries have five dimensions") };
    let own_length = own.key.size()[3];
    let (own_key, own_value) =
        (own.key.view([b * h * g, own_length, d]), own.value.view([b * h * g, own_length, d]));
    let own_scores = scores(&query.view([b * h * g, r, d]), &own_key, own_bias);
    let Some(Shared { prompts, bias }) = shared else {
        return own_scores
            .softmax(-1, Kind::Float)
            .to_kind(query.kind())
            .bmm(&own_value)
            .view([b, h, g, r, d]);
    };

    let prompt_length = prompts.key.size()[2];
    let shared_shape = [b * h, prompt_length, d];
    let shared_scores = scores(&query.view([b * h, g * r, d]), &prompts.key.view(shared_shape), bias);
    let weights = Tensor::cat(
        &[shared_scores.view([b, h, g, r, prompt_length]), own_scores.view([b, h, g, r, own_length])],
        -1,
    )
    .softmax(-1, Kind::Float)
    .to_kind(query.kind());
    let from_prompt = weights
        .narrow(-1, 0, prompt_length)
        .view([b * h, g * r, prompt_length])
        .bmm(&prompts.value.view(shared_shape));
    let from_own =
        weights.narrow(-1, prompt_length, own_length).view([b * h * g, r, own_length]).bmm(&own_value);
    from_prompt.view([b, h, g, r, d]) + from_own.view([b, h, g, r, d])
}

fn scores(query: &Tensor, key: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let key = key.transpose(1, 2);
    match bias {
        // A single pass, and backward does not touch the bias.
        Some(bias) => bias.baddbmm(query, &key, 1.0, 1.0),
        None => query.bmm(&key),
    }
}

/// \[B·G, L, query heads, D\] to \[B, key heads, G, L · queries per key, D\].
pub(crate) fn fold_queries(query: &Tensor, prompts: i64, key_heads: i64) -> Tensor {
    let [sequences, length, query_heads, d] = query.size()[..] else { unreachable!("four dimensions") };
    let (g, repeats) = (sequences / prompts, query_heads / key_heads);
    let by_key_head = query.reshape([prompts, g, length, key_heads, repeats, d]).permute([0, 3, 1, 2, 4, 5]);
    by_key_head.contiguous().view([prompts, key_heads, g, length * repeats, d])
}

/// \[B·G, L, key heads, D\] to \[B, key heads, G, L, D\].
pub(crate) fn fold_keys(key: &Tensor, prompts: i64) -> Tensor {
    let [sequences, length, heads, d] = key.size()[..] else { unreachable!("four dimensions") };
    key.reshape([prompts, sequences / prompts, length, heads, d]).permute([0, 3, 1, 2, 4]).contiguous()
}

/// The inverse of [`fold_queries`], with heads joined: \[B, key heads, G, L · queries per key, D\] to \[B·G, L, query
/// heads · D\].
pub(crate) fn unfold(x: &Tensor, length: i64) -> Tensor {
    let [b, h, g, rows, d] = x.size()[..] else { unreachable!("five dimensions") };
    let repeats = rows / length;
    x.view([b, h, g, length, repeats, d]).permute([0, 2, 3, 1, 4, 5]).reshape([
        b * g,
        length,
        h * repeats * d,
    ])
}

/// \[1, length · repeats, length\]: a row attends to its own position and earlier ones.
pub(crate) fn causal_bias(length: i64, repeats: i64, kind: Kind, device: Device) -> Tensor {
    Tensor::full([length, length], MASKED, (kind, device))
        .triu(1)
        .repeat_interleave_self_int(repeats, 0, None)
        .unsqueeze(0)
}

/// The attention layer of a block.
#[derive(Debug)]
pub(crate) struct Attention {
    query_key_value: Joint<3>,
    output: Linear,
    query_key_norms: Option<(RmsNorm, RmsNorm)>,
    query_heads: i64,
    key_heads: i64,
    head_dim: i64,
}

impl Attention {
    /// The attention of the block `prefix`.
    pub(crate) fn new(weights: &Weights, prefix: &str, config: &Config) -> Self {
        let norm = |part: &str| {
            RmsNorm::new(weights.get(&format!("{prefix}.self_attn.{part}_norm.weight")), config.rms_norm_eps)
        };
        Self {
            query_key_value: Joint::new(weights, prefix, joint::QUERY_KEY_VALUE),
            output: Linear::new(weights, &format!("{prefix}.self_attn.o_proj")),
            query_key_norms: config.has_query_key_norms().then(|| (norm("q"), norm("k"))),
            query_heads: config.num_attention_heads,
            key_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    /// \[rows, hidden\] to \[rows, hidden\].
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        rows: &Rows,
        layer: usize,
        arrangement: &mut dyn Arrangement,
    ) -> Tensor {
        let one_pass = rows.fused && self.head_dim <= LARGEST_HEAD;
        let heads = if one_pass { self.heads_in_one_pass(x, rows) } else { self.heads(x, rows) };
        self.output.forward(&arrangement.attend(layer, &heads), rows)
    }

    /// \[rows, hidden\] to \[outputs, hidden\].
    pub(crate) fn forward_outputs(
        &self,
        x: &Tensor,
        rows: &Rows,
        outputs: &Outputs,
        layer: usize,
        arrangement: &mut dyn Arrangement,
    ) -> Tensor {
        let [query, key, value] = self.query_key_value.parts();
        let query = query.forward(&outputs.select(x), &outputs.rows);
        let parts = [query, key.forward(x, rows), value.forward(x, rows)];
        let heads = self.rotated(parts, &outputs.rows, rows);
        self.output.forward(&arrangement.attend(layer, &heads), &outputs.rows)
    }

    fn heads(&self, x: &Tensor, rows: &Rows) -> Heads {
        self.rotated(self.query_key_value.forward(x, rows), rows, rows)
    }

    /// Splits queries, keys and values into heads, and norms and rotates queries and keys.
    fn rotated(&self, parts: [Tensor; 3], query_rows: &Rows, key_rows: &Rows) -> Heads {
        let [mut query, mut key, value] = parts.map(|part| self.split(&part));
        if let Some((query_norm, key_norm)) = &self.query_key_norms {
            (query, key) = (query_norm.forward(&query), key_norm.forward(&key));
        }
        let (query, key) = (query_rows.rotation.apply(&query), key_rows.rotation.apply(&key));
        Heads { query, key, value, scale: self.scale() }
    }

    /// The same as [`Self::heads`], with norms and rotation of queries and keys in one pass.
    fn heads_in_one_pass(&self, x: &Tensor, rows: &Rows) -> Heads {
        let product = self.query_key_value.product(x, rows);
        let rotated_heads = self.query_heads + self.key_heads;
        let part = |first: i64, heads: i64| {
            self.split(&product.narrow(1, first * self.head_dim, heads * self.head_dim))
        };
        let norms = self.query_key_norms.as_ref().map(|(query, key)| HeadNorms {
            query: query.weight(),
            key: key.weight(),
            epsilon: query.epsilon(),
        });
        let rotated = rows.rotation.apply_normed(&part(0, rotated_heads), self.query_heads, norms);
        Heads {
            query: rotated.narrow(1, 0, self.query_heads),
            key: rotated.narrow(1, self.query_heads, self.key_heads),
            value: part(rotated_heads, self.key_heads),
            scale: self.scale(),
        }
    }

    /// \[rows, heads · D\] to \[rows, heads, D\].
    fn split(&self, rows: &Tensor) -> Tensor {
        rows.view([rows.size()[0], -1, self.head_dim])
    }

    fn scale(&self) -> f64 {
        (self.head_dim as f64).powf(-0.5)
    }
}
