//! GRU4Rec: a gated recurrent network over the history (Hidasi et al. 2016, arXiv:1511.06939).
//!
//! Embeddings pass dropout and one recurrent layer, whose state is mapped to the width of the embeddings. The loss is
//! softmax cross-entropy over the whole catalogue instead of the paper's losses over sampled items.

use podium_checkpoint::parameters::Initial;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{Encoder, Loss, Options};
use crate::dropout::{self, Dropout};
use crate::parameters::{Parameters, parameter};

/// Standard deviation of initial embeddings.
const STANDARD_DEVIATION: f64 = 0.02;
/// Parameters of the recurrent layer, in libtorch's order.
const RECURRENT: [&str; 4] = ["input.weight", "state.weight", "input.bias", "state.bias"];

/// The settings of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Width of embeddings.
    pub width: i64,
    /// Width of the recurrent state.
    pub state: i64,
    /// Maximum number of items that are read, the newest.
    pub length: usize,
    /// Share of dropped activations.
    pub dropout: f64,
    /// Step size.
    pub learning_rate: f64,
    /// Number of windows in a batch.
    pub batch: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { width: 64, state: 128, length: 50, dropout: 0.2, learning_rate: 1e-3, batch: 64 }
    }
}

impl Settings {
    pub(crate) fn options(&self, seed: u64) -> Options {
        let Self { length, batch, dropout, learning_rate, .. } = *self;
        Options { seed, length, batch, dropout, learning_rate, loss: Loss::CrossEntropy }
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct Gru4Rec {
    parameters: Parameters,
    embeddings: Tensor,
    recurrent: [Tensor; 4],
    output: Tensor,
    state: i64,
}

impl Gru4Rec {
    /// Creates the network with random weights for this number of items.
    pub(crate) fn new(items: usize, settings: &Settings, seed: u64) -> Self {
        let (width, state) = (settings.width, settings.state);
        let list = vec![
            parameter("embeddings", &[items as i64, width], Initial::Normal),
            parameter(RECURRENT[0], &[3 * state, width], Initial::Uniform),
            parameter(RECURRENT[1], &[3 * state, state], Initial::Uniform),
            parameter(RECURRENT[2], &[3 * state], Initial::Zeros),
            parameter(RECURRENT[3], &[3 * state], Initial::Zeros),
            parameter("output.weight", &[width, state], Initial::Uniform),
        ];
        let parameters = Parameters::new(list, seed, STANDARD_DEVIATION);
        Self {
            embeddings: parameters.get("embeddings"),
            recurrent: RECURRENT.map(|name| parameters.get(name)),
            output: parameters.get("output.weight"),
            state,
            parameters,
        }
    }
}

impl Encoder for Gru4Rec {
    fn encode(&self, items: &Tensor, dropout: Option<&Dropout>) -> Tensor {
        let embedded = Tensor::embedding(&self.embeddings, items, -1, false, false);
        let embedded = dropout::apply(dropout, &embedded);
        let start = Tensor::zeros([1, items.size()[0], self.state], (Kind::Float, Device::Cpu));
        let (states, _) = embedded.gru(&start, &self.recurrent, true, 1, 0.0, dropout.is_some(), false, true);
        dropout::apply(dropout, &states).linear(&self.output, None::<&Tensor>)
    }

    fn embeddings(&self) -> &Tensor {
        &self.embeddings
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}
