//! SASRec: causal self-attention over the history (Kang and McAuley 2018, arXiv:1808.09781).
//!
//! A layer is `x + dropout(attention(norm(x)))` and then `x + dropout(feed_forward(norm(x)))`, with a feed-forward part
//! of the width of the embeddings. Positions are counted from the first item that is read.

use podium_checkpoint::parameters::Initial;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{Encoder, Loss, Options};
use crate::dropout::{self, Dropout};
use crate::parameters::{Parameters, parameter};

/// Standard deviation of initial matrices.
const STANDARD_DEVIATION: f64 = 0.02;
const NORM_EPSILON: f64 = 1e-8;

/// The settings of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Width of embeddings and layers.
    pub width: i64,
    /// Number of layers.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: i64,
    /// Maximum number of items that are read, the newest.
    pub length: usize,
    /// Share of dropped activations.
    pub dropout: f64,
    /// Step size.
    pub learning_rate: f64,
    /// Number of windows in a batch.
    pub batch: usize,
    /// The loss.
    pub loss: Loss,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            width: 64,
            layers: 2,
            heads: 2,
            length: 50,
            dropout: 0.2,
            learning_rate: 1e-3,
            batch: 64,
            loss: Loss::CrossEntropy,
        }
    }
}

impl Settings {
    pub(crate) fn options(&self, seed: u64) -> Options {
        let Self { length, batch, dropout, learning_rate, loss, .. } = *self;
        Options { seed, length, batch, dropout, learning_rate, loss }
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct SasRec {
    parameters: Parameters,
    embeddings: Tensor,
    positions: Tensor,
    layers: Vec<Layer>,
    last_norm: Norm,
    heads: i64,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Norm,
    /// Queries, keys and values in one map.
    inputs: Linear,
    output: Linear,
    feed_forward_norm: Norm,
    inner: Linear,
    outer: Linear,
}

#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl SasRec {
    /// Creates the network with random weights for this number of items.
    pub(crate) fn new(items: usize, settings: &Settings, seed: u64) -> Self {
        let width = settings.width;
        let mut list = vec![
            parameter("embeddings", &[items as i64, width], Initial::Normal),
            parameter("positions", &[settings.length as i64, width], Initial::Normal),
        ];
        let mut norm = |name: &str| {
            list.push(parameter(format!("{name}.weight"), &[width], Initial::Ones));
            list.push(parameter(format!("{name}.bias"), &[width], Initial::Zeros));
        };
        norm("last_norm");
        for layer in 0..settings.layers {
            norm(&format!("{layer}.attention_norm"));
            norm(&format!("{layer}.feed_forward_norm"));
        }
        for layer in 0..settings.layers {
            for (name, outputs) in
                [("inputs", 3 * width), ("output", width), ("inner", width), ("outer", width)]
            {
                list.push(parameter(format!("{layer}.{name}.weight"), &[outputs, width], Initial::Normal));
                list.push(parameter(format!("{layer}.{name}.bias"), &[outputs], Initial::Zeros));
            }
        }
        let parameters = Parameters::new(list, seed, STANDARD_DEVIATION);
        let pair =
            |name: &str| (parameters.get(&format!("{name}.weight")), parameters.get(&format!("{name}.bias")));
        let norm = |name: &str| {
            let (weight, bias) = pair(name);
            Norm { weight, bias }
        };
        let linear = |name: &str| {
            let (weight, bias) = pair(name);
            Linear { weight, bias }
        };
        let layer = |layer: usize| Layer {
            attention_norm: norm(&format!("{layer}.attention_norm")),
            inputs: linear(&format!("{layer}.inputs")),
            output: linear(&format!("{layer}.output")),
            feed_forward_norm: norm(&format!("{layer}.feed_forward_norm")),
            inner: linear(&format!("{layer}.inner")),
            outer: linear(&format!("{layer}.outer")),
        };
        Self {
            embeddings: parameters.get("embeddings"),
            positions: parameters.get("positions"),
            layers: (0..settings.layers).map(layer).collect(),
            last_norm: norm("last_norm"),
            heads: settings.heads,
            parameters,
        }
    }
}

impl Encoder for SasRec {
    fn encode(&self, items: &Tensor, dropout: Option<&Dropout>) -> Tensor {
        let length = items.size()[1];
        let embedded = Tensor::embedding(&self.embeddings, items, -1, false, false);
        let mut x = dropout::apply(dropout, &(embedded + self.positions.narrow(0, 0, length)));
        let later = Tensor::ones([length, length], (Kind::Bool, Device::Cpu)).triu(1);
        for layer in &self.layers {
            x = &x + dropout::apply(dropout, &layer.attend(&x, &later, self.heads, dropout));
            let inner = layer.inner.apply(&layer.feed_forward_norm.apply(&x)).relu();
            let outer = layer.outer.apply(&dropout::apply(dropout, &inner));
            x = &x + dropout::apply(dropout, &outer);
        }
        self.last_norm.apply(&x)
    }

    fn embeddings(&self) -> &Tensor {
        &self.embeddings
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

impl Layer {
    /// Returns the attention of `x`, `[sequences, length, width]`, without the positions that `later` marks.
    fn attend(&self, x: &Tensor, later: &Tensor, heads: i64, dropout: Option<&Dropout>) -> Tensor {
        let (sequences, length, width) = x.size3().expect("three dimensions");
        let inputs = self.inputs.apply(&self.attention_norm.apply(x));
        // [3, sequences, heads, length, width of a head]
        let inputs = inputs.view([sequences, length, 3, heads, width / heads]).permute([2, 0, 3, 1, 4]);
        let (queries, keys, values) = (inputs.get(0), inputs.get(1), inputs.get(2));
        let scores = queries.matmul(&keys.transpose(-2, -1)) / ((width / heads) as f64).sqrt();
        let shares = scores.masked_fill(later, f64::NEG_INFINITY).softmax(-1, Kind::Float);
        let attended = dropout::apply(dropout, &shares).matmul(&values);
        self.output.apply(&attended.transpose(1, 2).reshape([sequences, length, width]))
    }
}

impl Linear {
    fn apply(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

impl Norm {
    fn apply(&self, x: &Tensor) -> Tensor {
        let width = self.weight.size();
        x.layer_norm(width.as_slice(), Some(&self.weight), Some(&self.bias), NORM_EPSILON, false)
    }
}
