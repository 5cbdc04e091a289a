//! The row-wise layers: linear maps, norms and the feed-forward part.
//!
//! Only `Linear` multiplies a weight matrix with activations, so adapters apply there.

use podium_checkpoint::parameters;
use tch::{Kind, Tensor};

use crate::adapter::Adapter;
use crate::config::Config;
use crate::lora::{Dropout, Lora};
use crate::rope::Rotation;

/// A policy's parameters during the construction of its layers.
pub(crate) struct Weights<'a> {
    pub(crate) base: &'a [(String, Tensor)],
    pub(crate) adapter: Option<&'a Adapter>,
}

/// Data of a forward's rows that all layers need.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) rotation: Rotation,
    /// `None` outside of training.
    pub(crate) dropout: Option<Dropout>,
}

impl Weights<'_> {
    /// Returns the parameter `name`, which the list in [`parameters`] contains.
    pub(crate) fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| unreachable!("no parameter is called {name}"))
    }

    fn find(&self, name: &str) -> Option<Tensor> {
        self.base.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor.shallow_clone())
    }
}

/// A linear map, with or without bias.
#[derive(Debug)]
pub(crate) struct Linear {
    /// \[outputs, inputs\]
    weight: Tensor,
    /// \[outputs\]
    bias: Option<Tensor>,
    lora: Option<Lora>,
}

impl Linear {
    pub(crate) fn new(weights: &Weights, name: &str) -> Self {
        let weight = weights.get(&format!("{name}.weight"));
        Self {
            bias: weights.find(&format!("{name}.bias")),
            lora: weights.adapter.and_then(|adapter| adapter.lora(name, weight.kind())),
            weight,
        }
    }

    pub(crate) fn from_weight(weight: Tensor) -> Self {
        Self { weight, bias: None, lora: None }
    }

    /// \[rows, inputs\] to \[rows, outputs\].
    pub(crate) fn forward(&self, x: &Tensor, dropout: Option<&Dropout>) -> Tensor {
        let outputs = x.linear(&self.weight, self.bias.as_ref());
        match &self.lora {
            Some(lora) => lora.add(&outputs, x, dropout),
            None => outputs,
        }
    }
}

/// Root-mean-square norm over the last dimension, computed in float32 (Zhang and Sennrich 2019, arXiv:1910.07467).
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn new(weight: Tensor, epsilon: f64) -> Self {
        Self { weight, epsilon }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        let x = x.to_kind(Kind::Float);
        let mean_square = x.square().mean_dim([-1i64].as_slice(), true, None);
        let normalised = &x * (mean_square + self.epsilon).rsqrt();
        normalised.to_kind(kind) * &self.weight
    }
}

/// The gated feed-forward part (`SwiGLU`, Shazeer 2020, arXiv:2002.05202).
#[derive(Debug)]
pub(crate) struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    pub(crate) fn new(weights: &Weights, name: &str) -> Self {
        let linear = |part: &str| Linear::new(weights, &format!("{name}.{part}_proj"));
        Self { gate: linear("gate"), up: linear("up"), down: linear("down") }
    }

    pub(crate) fn forward(&self, x: &Tensor, dropout: Option<&Dropout>) -> Tensor {
        let gated = self.gate.forward(x, dropout).silu() * self.up.forward(x, dropout);
        self.down.forward(&gated, dropout)
    }
}

/// The head: the logits of rows of hidden states.
pub(crate) fn head(weights: &Weights, config: &Config) -> Linear {
    let name = if config.tie_word_embeddings { parameters::EMBEDDING } else { parameters::HEAD };
    Linear::from_weight(weights.get(name))
}
