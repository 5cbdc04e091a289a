//! The layers that treat every row by itself: linear maps, norms and the feed-forward part.
//!
//! `Linear` is the only place where a weight matrix meets activations, so it is where an adapter belongs.

use podium_checkpoint::parameters;
use tch::{Kind, Tensor};

use crate::config::Config;

/// A policy's parameters while its layers are put together.
pub(crate) struct Weights<'a>(pub(crate) &'a [(String, Tensor)]);

impl Weights<'_> {
    /// The parameter of that name, which the list in [`parameters`] is sure to hold.
    pub(crate) fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| unreachable!("no parameter is called {name}"))
    }

    fn find(&self, name: &str) -> Option<Tensor> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor.shallow_clone())
    }
}

/// A linear map, with or without bias.
#[derive(Debug)]
pub(crate) struct Linear {
    /// \[outputs, inputs\]
    weight: Tensor,
    /// \[outputs\]
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(weights: &Weights, name: &str) -> Self {
        Self { weight: weights.get(&format!("{name}.weight")), bias: weights.find(&format!("{name}.bias")) }
    }

    pub(crate) fn from_weight(weight: Tensor) -> Self {
        Self { weight, bias: None }
    }

    /// \[rows, inputs\] to \[rows, outputs\].
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
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

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.down.forward(&(self.gate.forward(x).silu() * self.up.forward(x)))
    }
}

/// The head: the logits of rows of hidden states.
pub(crate) fn head(weights: &Weights, config: &Config) -> Linear {
    let name = if config.tie_word_embeddings { parameters::EMBEDDING } else { parameters::HEAD };
    Linear::from_weight(weights.get(name))
}
