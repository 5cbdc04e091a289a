//! What a trainable recommender is to its training.

use tch::Tensor;

use crate::interactions::Case;
use crate::parameters::Parameters;

/// Scores items for users.
pub(crate) trait Scorer {
    /// Returns the scores of every item for each case, `[cases, items]`, float32, without gradients. Targets are not
    /// read.
    fn scores(&self, cases: &[Case]) -> Tensor;
}

/// A recommender that is trained by gradients.
pub(crate) trait Network: Scorer {
    /// Its parameters.
    fn parameters(&self) -> &Parameters;

    /// Step size of the optimizer.
    fn learning_rate(&self) -> f64;

    /// Accumulates the gradients of one batch of an epoch after another, calling `update` after each. `epoch` counts
    /// from 1. Returns the mean loss.
    fn epoch(&self, epoch: u64, update: &mut dyn FnMut()) -> f64;
}
