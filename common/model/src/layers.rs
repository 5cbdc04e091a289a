//! The row-wise layers: linear maps and norms.
//!
//! Adapters apply in [`Linear`].

use podium_checkpoint::parameters;
use podium_torch_shim::LowRank;
use tch::Tensor;

use crate::adapter::Adapter;
use crate::config::Config;
use crate::lora::{Dropout, Lora};
use crate::rope::Rotation;
use crate::shim::computed;

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
    /// Whether the forward is part of sampling, which has no gradients.
    pub(crate) inference: bool,
    /// Whether several operations of sampling are computed in one pass.
    pub(crate) fused: bool,
    /// The rows whose outputs are used after the last block; `None` for all rows.
    pub(crate) outputs: Option<Outputs>,
}

/// The rows of a forward whose outputs are used. The last block computes queries, output map and feed-forward part of these
/// rows alone; of the others it needs keys and values.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// \[outputs\]
    index: Tensor,
    /// The data of these rows.
    pub(crate) rows: Box<Rows>,
}

impl Outputs {
    /// \[rows, …\] to \[outputs, …\].
    pub(crate) fn select(&self, x: &Tensor) -> Tensor {
        select_rows(x, &self.index)
    }
}

/// Gathers rows of a matrix by index. Its backward adds in a fixed order.
pub(crate) fn select_rows(x: &Tensor, index: &Tensor) -> Tensor {
    Tensor::embedding(x, index, -1, false, false)
}

impl Rows {
    /// Limits the outputs to the rows `index`, \[outputs\].
    pub(crate) fn with_outputs(self, index: Tensor) -> Self {
        let rows = Self {
            rotation: self.rotation.select(&index),
            dropout: self.dropout.as_ref().map(|dropout| dropout.select(&index)),
            outputs: None,
            ..self
        };
        Self { outputs: Some(Outputs { index, rows: Box::new(rows) }), ..self }
    }
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

    /// \[rows, inputs\] to \[rows, outputs\].
    pub(crate) fn forward(&self, x: &Tensor, rows: &Rows) -> Tensor {
        if rows.fused {
            let part = self.part(0);
            return computed(podium_torch_shim::linear(x, &self.weight, self.bias.as_ref(), part.as_slice()));
        }
        self.adapt(x.linear(&self.weight, self.bias.as_ref()), x, rows.dropout.as_ref())
    }

    /// Adds the adapter's part to `outputs`, in their memory.
    pub(crate) fn adapt(&self, outputs: Tensor, x: &Tensor, dropout: Option<&Dropout>) -> Tensor {
        match &self.lora {
            Some(lora) => lora.add(outputs, x, dropout),
            None => outputs,
        }
    }

    /// The adapter as a part of a product whose outputs from `first` are those of this map.
    pub(crate) fn part(&self, first: i64) -> Option<LowRank<'_>> {
        self.lora.as_ref().map(|lora| lora.part(first))
    }

    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
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

    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    pub(crate) const fn epsilon(&self) -> f64 {
        self.epsilon
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        computed(podium_torch_shim::rms_norm(x, &self.weight, self.epsilon))
    }
}

/// Returns the weights of the head, which computes logits: \[vocabulary, hidden\].
pub(crate) fn head(weights: &Weights, config: &Config) -> Tensor {
    weights.get(if config.tie_word_embeddings { parameters::EMBEDDING } else { parameters::HEAD })
}
