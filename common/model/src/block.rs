//! The block: attention and feed-forward part, each after a norm and added to its input.

use podium_checkpoint::parameters;
use tch::Tensor;

use crate::attention::{Arrangement, Attention};
use crate::config::Config;
use crate::layers::{Outputs, RmsNorm, Rows, Weights};
use crate::mlp::Mlp;

/// One block of a policy.
#[derive(Debug)]
pub(crate) struct Block {
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    mlp: Mlp,
}

impl Block {
    pub(crate) fn new(weights: &Weights, layer: i64, config: &Config) -> Self {
        let prefix = parameters::block_prefix(layer);
        let norm =
            |name: &str| RmsNorm::new(weights.get(&format!("{prefix}.{name}.weight")), config.rms_norm_eps);
        Self {
            input_norm: norm("input_layernorm"),
            attention: Attention::new(weights, &prefix, config),
            post_attention_norm: norm("post_attention_layernorm"),
            mlp: Mlp::new(weights, &prefix),
        }
    }

    pub(crate) fn forward(
        &self,
        x: &Tensor,
        rows: &Rows,
        layer: usize,
        arrangement: &mut dyn Arrangement,
    ) -> Tensor {
        let x = x + self.attention.forward(&self.input_norm.forward(x), rows, layer, arrangement);
        self.feed_forward(&x, rows)
    }

    /// Computes the outputs alone, \[rows, hidden\] to \[outputs, hidden\].
    pub(crate) fn forward_outputs(
        &self,
        x: &Tensor,
        rows: &Rows,
        outputs: &Outputs,
        layer: usize,
        arrangement: &mut dyn Arrangement,
    ) -> Tensor {
        let normed = self.input_norm.forward(x);
        let attended = self.attention.forward_outputs(&normed, rows, outputs, layer, arrangement);
        self.feed_forward(&(outputs.select(x) + attended), &outputs.rows)
    }

    fn feed_forward(&self, x: &Tensor, rows: &Rows) -> Tensor {
        x + self.mlp.forward(&self.post_attention_norm.forward(x), rows)
    }
}
