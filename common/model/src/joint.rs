//! Linear maps of the same rows, computed as one product in sampling.
//!
//! Their weights are adjacent parts of one matrix. Training computes each map by itself, since its gradients belong to the
//! parts.

use podium_checkpoint::parameters;
use podium_torch_shim::LowRank;
use tch::{Tensor, no_grad};

use crate::config::Config;
use crate::layers::{Linear, Rows, Weights};
use crate::shim::computed;

/// The maps of a block that read the same rows, by the ends of their names.
pub(crate) const QUERY_KEY_VALUE: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
/// The same for the feed-forward part.
pub(crate) const GATE_UP: [&str; 2] = ["mlp.gate_proj", "mlp.up_proj"];

/// Moves the parameters of joint maps next to each other, unless they are already.
pub(crate) fn join(parameters: &mut [(String, Tensor)], config: &Config) {
    let maps = |layer| {
        let prefix = parameters::block_prefix(layer);
        [&QUERY_KEY_VALUE[..], &GATE_UP]
            .map(|names| names.iter().map(|name| format!("{prefix}.{name}")).collect::<Vec<_>>())
    };
    for names in (0..config.num_hidden_layers).flat_map(maps) {
        for kind in ["weight", "bias"] {
            let position = |name: &String| {
                let name = format!("{name}.{kind}");
                parameters.iter().position(|(own, _)| *own == name)
            };
            if let Some(positions) = names.iter().map(position).collect::<Option<Vec<_>>>() {
                join_at(parameters, &positions);
            }
        }
    }
}

fn join_at(parameters: &mut [(String, Tensor)], positions: &[usize]) {
    let parts: Vec<&Tensor> = positions.iter().map(|position| &parameters[*position].1).collect();
    if computed(podium_torch_shim::adjacent(&parts)).is_some() {
        return;
    }
    let joint = no_grad(|| Tensor::cat(&parts, 0));
    let mut first = 0;
    for position in positions {
        let part = &mut parameters[*position].1;
        let length = part.size()[0];
        *part = no_grad(|| joint.narrow(0, first, length).detach());
        first += length;
    }
}

/// Linear maps of the same rows.
#[derive(Debug)]
pub(crate) struct Joint<const N: usize> {
    parts: [Linear; N],
    /// \[outputs of all parts, inputs\]
    weight: Tensor,
    bias: Option<Tensor>,
}

impl<const N: usize> Joint<N> {
    /// The maps of the block `prefix` with these names, whose weights are adjacent.
    pub(crate) fn new(weights: &Weights, prefix: &str, names: [&str; N]) -> Self {
        let parts = names.map(|name| Linear::new(weights, &format!("{prefix}.{name}")));
        let joint = |parts: Vec<&Tensor>| computed(podium_torch_shim::adjacent(&parts));
        let weight = joint(parts.iter().map(Linear::weight).collect()).expect("weights are joined");
        let biases: Option<Vec<&Tensor>> = parts.iter().map(Linear::bias).collect();
        let bias = biases.map(|biases| joint(biases).expect("biases are joined"));
        Self { parts, weight, bias }
    }

    /// The maps, one by one.
    pub(crate) const fn parts(&self) -> &[Linear; N] {
        &self.parts
    }

    /// \[rows, inputs\] to \[rows, outputs\] of each map.
    pub(crate) fn forward(&self, x: &Tensor, rows: &Rows) -> [Tensor; N] {
        if rows.inference {
            self.split(&self.product(x, rows))
        } else {
            self.parts.each_ref().map(|part| part.forward(x, rows))
        }
    }

    /// The weight of all maps if they have no biases: \[outputs of all maps, inputs\].
    pub(crate) fn weight_without_bias(&self) -> Option<&Tensor> {
        self.bias.is_none().then_some(&self.weight)
    }

    /// The adapters as parts of the product of all maps.
    pub(crate) fn low_rank(&self) -> Vec<LowRank<'_>> {
        let mut next = 0;
        let mut parts = Vec::with_capacity(N);
        for part in &self.parts {
            parts.extend(part.part(next));
            next += part.weight().size()[0];
        }
        parts
    }

    /// \[rows, inputs\] to \[rows, outputs of all maps\], without gradients and dropout.
    pub(crate) fn product(&self, x: &Tensor, rows: &Rows) -> Tensor {
        if rows.fused {
            let parts = self.low_rank();
            return computed(podium_torch_shim::linear(x, &self.weight, self.bias.as_ref(), &parts));
        }
        let outputs = x.linear(&self.weight, self.bias.as_ref());
        for (part, outputs) in self.parts.iter().zip(self.split(&outputs)) {
            let _ = part.adapt(outputs, x, None);
        }
        outputs
    }

    /// The outputs of each map, which share the memory of `product`.
    fn split(&self, product: &Tensor) -> [Tensor; N] {
        let mut first = 0;
        self.parts.each_ref().map(|part| {
            let length = part.weight().size()[0];
            first += length;
            product.narrow(1, first - length, length)
        })
    }
}
