//! How a learner loads the policy of a run.

use podium_config::{Attention, Model};
use podium_model::{LoadOptions, device};
use tch::Device;

/// Returns the options to load the policy of a run for training.
pub(crate) fn options(device: Device, model: &Model) -> Result<LoadOptions, device::Error> {
    let bfloat16 = model.dtype.bfloat16();
    device::check_bfloat16(device, bfloat16, model.emulate_bfloat16)?;
    Ok(LoadOptions::new(device, bfloat16)
        .for_training()
        .with_materialized_attention(model.attention == Attention::Materialized))
}
