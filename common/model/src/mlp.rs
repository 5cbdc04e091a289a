//! The feed-forward part of a block.

use tch::Tensor;

use crate::joint::{self, Joint};
use crate::layers::{Linear, Rows, Weights};
use crate::shim::computed;

/// The gated feed-forward part (`SwiGLU`, Shazeer 2020, arXiv:2002.05202).
#[derive(Debug)]
pub(crate) struct Mlp {
    gate_up: Joint<2>,
    down: Linear,
}

impl Mlp {
    /// The feed-forward part of the block `prefix`.
    pub(crate) fn new(weights: &Weights, prefix: &str) -> Self {
        Self {
            gate_up: Joint::new(weights, prefix, joint::GATE_UP),
            down: Linear::new(weights, &format!("{prefix}.mlp.down_proj")),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor, rows: &Rows) -> Tensor {
        let gated = if let Some(weight) = self.gate_up.weight_without_bias().filter(|_| rows.fused) {
            podium_torch_shim::gated_linear(x, weight, &self.gate_up.low_rank())
        } else {
            let [gate, up] = self.gate_up.forward(x, rows);
            podium_torch_shim::gate(&gate, &up)
        };
        self.down.forward(&computed(gated), rows)
    }
}
