//! How a learner loads the policy of a run.

use podium_config::{Attention, Model};
use podium_model::LoadOptions;
use tch::Device;

/// Returns the options to load the policy of a run for training.
pub(crate) fn options(device: Device, model: &Model) -> LoadOptions {
    LoadOptions::new(device, model.dtype.bfloat16())
        .for_training()
        .with_materialized_attention(model.attention == Attention::Materialized)
}
