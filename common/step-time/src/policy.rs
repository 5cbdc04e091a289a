//! Work of a policy per row, layer and pass.

use podium_checkpoint::adapter::{self, AdapterConfig};
use podium_checkpoint::flops::{Positions, backward, forward};
use podium_checkpoint::{Config, FieldError, parameters};
use podium_memory::{Model, Number};

use crate::machine::Device;
use crate::parts::Parts;

/// Operations of libtorch in a layer of a forward pass, on a GPU, counted in the code: products, norms, rotations,
/// attention, activation function, sums.
pub(crate) const OPERATIONS_OF_LAYER: f64 = 35.0;
/// Operations for each adapted linear map of a layer.
pub(crate) const OPERATIONS_OF_ADAPTER: f64 = 3.0;

/// A policy with the adapter that is trained, if any.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its sizes.
    pub model: Model,
    forward: Flops,
    backward: Flops,
    /// Sum of the widths of the outputs of a layer's adapted maps.
    adapted_outputs: u64,
    /// Number of trained tensors.
    pub(crate) tensors: usize,
}

/// Operations of a pass for each token, each pair of a token and a token that it attends to, and each row of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Flops {
    token: f64,
    pair: f64,
    logit: f64,
}

impl Flops {
    fn new(of: &dyn Fn(Positions) -> u64) -> Self {
        let none = Positions::default();
        Self {
            token: of(Positions { tokens: 1, ..none }) as f64,
            pair: of(Positions { attended: 1, ..none }) as f64,
            logit: of(Positions { logits: 1, ..none }) as f64,
        }
    }
}

/// A pass over rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    /// The rows.
    pub(crate) positions: Positions,
    /// Rows that the layers compute at once.
    pub(crate) rows: f64,
    /// Rows that the head computes at once.
    pub(crate) head_rows: f64,
    /// Number of times that all weights are read and all operations are started.
    pub(crate) calls: f64,
    /// Whether the adapter is computed beside the model.
    pub(crate) adapted: bool,
    /// Memory traffic per logit, in bytes.
    pub(crate) logit_bytes: f64,
}

impl Policy {
    /// Returns the policy of this configuration, with the adapter that is trained, if any.
    pub fn new(config: &Config, number: Number, trained: Option<&AdapterConfig>) -> Result<Self, FieldError> {
        let model = Model::new(config, number, trained)?;
        let (outputs, tensors) = match trained {
            Some(trained) => {
                let outputs =
                    trained.modules(config)?.iter().map(|module| module.outputs as u64).sum::<u64>();
                (outputs.div_ceil(model.layers), adapter::parameters(config, trained)?.len())
            }
            None => (0, parameters::list(config).len()),
        };
        Ok(Self {
            model,
            forward: Flops::new(&|positions| forward(config, positions)),
            backward: Flops::new(&|positions| backward(config, positions, trained.is_some())),
            adapted_outputs: outputs,
            tensors,
        })
    }

    /// Number of trained parameters.
    pub fn trained(&self) -> u64 {
        self.model.adapter.map_or(self.model.parameters, |adapter| adapter.parameters)
    }

    /// Bytes of the weights that a forward pass reads. A head of its own leaves the embedding, of which only rows are
    /// read.
    pub fn weight_bytes(&self, adapted: bool) -> f64 {
        let model = &self.model;
        let embedding = if model.tied { 0 } else { model.vocabulary * model.hidden };
        let adapter = model.adapter.filter(|_| adapted).map_or(0, |adapter| adapter.parameters);
        (model.number.bytes() * (model.parameters - embedding + adapter)) as f64
    }

    /// Bytes of the keys and values of a token.
    pub fn cache_bytes_per_token(&self) -> f64 {
        (2 * self.model.layers * self.model.keys * self.model.number.bytes()) as f64
    }

    /// A forward pass.
    pub(crate) fn forward(&self, device: &Device, pass: &Pass) -> Parts {
        self.products(device, pass, self.forward, 1.0)
            + Parts {
                elementwise: self.elementwise(device, pass) / device.bandwidth,
                weights: pass.calls * self.weight_bytes(pass.adapted) / device.bandwidth,
                launches: pass.calls * self.operations(pass.adapted) * device.launch,
                ..Parts::default()
            }
    }

    /// A backward pass, without recomputation. It moves twice the bytes and starts twice the operations of a forward pass.
    pub(crate) fn backward(&self, device: &Device, pass: &Pass) -> Parts {
        let moved = self.elementwise(device, &Pass { logit_bytes: pass.logit_bytes / 2.0, ..*pass });
        self.products(device, pass, self.backward, 2.0)
            + Parts {
                elementwise: 2.0 * moved / device.bandwidth,
                weights: pass.calls * self.weight_bytes(pass.adapted) / device.bandwidth,
                launches: 2.0 * pass.calls * self.operations(pass.adapted) * device.launch,
                ..Parts::default()
            }
    }

    /// Products with weights at the rate of the rows, attention, and the adapter's products, whose inner dimension has the
    /// rate of as many rows.
    fn products(&self, device: &Device, pass: &Pass, flops: Flops, factor: f64) -> Parts {
        let Positions { tokens, attended, logits } = pass.positions;
        let layers = flops.token * tokens as f64 / device.products.at(pass.rows);
        let head = flops.logit * logits as f64 / device.products.at(pass.head_rows);
        let attention = flops.pair * attended as f64 / device.attention;
        let adapter = self.model.adapter.filter(|_| pass.adapted).map_or(0.0, |adapter| {
            let per_row = 2 * adapter.rank * self.model.layers * (adapter.inputs + self.adapted_outputs);
            factor * (per_row * tokens) as f64 / device.products.at(pass.rows.min(adapter.rank as f64))
        });
        Parts { products: layers + head + attention + adapter, ..Parts::default() }
    }

    /// Bytes that operations other than products read and write in a forward pass.
    fn elementwise(&self, device: &Device, pass: &Pass) -> f64 {
        let Model { hidden, feed_forward, queries, keys, .. } = self.model;
        // Two norms and two sums: an input and an output each, and a second input of sums.
        let stream = 10 * hidden;
        // One pass over memory on a CPU. On a GPU: swapped halves, product, sum; activation function and product.
        let (rotation, gate) = if device.fused { (2, 3) } else { (8, 5) };
        let norms = if self.model.norms { 2 } else { 0 };
        let layer = stream + (rotation + norms) * (queries + keys) + gate * feed_forward;
        let adapter = self.model.adapter.filter(|_| pass.adapted);
        let adapter = adapter.map_or(0, |adapter| adapter.inputs + 2 * self.adapted_outputs);
        let per_row = self.model.number.bytes() * self.model.layers * (layer + adapter);
        let logits = pass.positions.logits as f64 * self.model.vocabulary as f64 * pass.logit_bytes;
        pass.positions.tokens as f64 * per_row as f64 + logits
    }

    /// Operations of a forward pass.
    pub(crate) fn operations(&self, adapted: bool) -> f64 {
        let maps = self.model.adapter.filter(|_| adapted).map_or(0, |adapter| adapter.maps);
        self.model.layers as f64 * (OPERATIONS_OF_LAYER + OPERATIONS_OF_ADAPTER * maps as f64)
    }
}
