//! `LoRA` adapters (Hu et al. 2021, arXiv:2106.09685) in PEFT's files: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! Variants that the model code would compute wrongly are refused by name.

mod config;
mod modules;
mod targets;

use std::path::Path;

pub use config::{AdapterConfig, CONFIG};
pub use modules::Module;
pub use targets::{LINEAR, Targets};

use podium_files::durable::{self, Durability};

use crate::config::Config;
use crate::parameters::{Initial, Parameter};
use crate::{Checkpoint, Error, FieldError, TensorInfo, config as model_config, write_file};

/// File name of an adapter's weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// File name of the weights in old versions of PEFT.
const PICKLE: &str = "adapter_model.bin";

/// Name of `lora_A` of a module, \[rank, inputs\].
pub fn lora_a(module: &str) -> String {
    format!("base_model.model.{module}.lora_A.weight")
}

/// Name of `lora_B` of a module, \[outputs, rank\].
pub fn lora_b(module: &str) -> String {
    format!("base_model.model.{module}.lora_B.weight")
}

/// The parameters of an adapter on a model of this shape, in model order: `lora_A` and `lora_B` of each module.
pub fn parameters(config: &Config, adapter: &AdapterConfig) -> Result<Vec<Parameter>, FieldError> {
    adapter.check()?;
    let rank = adapter.rank;
    let pair = |module: Module| {
        [
            Parameter {
                name: lora_a(&module.name),
                shape: vec![rank, module.inputs],
                initial: Initial::Uniform,
            },
            Parameter {
                name: lora_b(&module.name),
                shape: vec![module.outputs, rank],
                initial: Initial::Zeros,
            },
        ]
    };
    Ok(adapter.modules(config)?.into_iter().flat_map(pair).collect())
}

/// Opens the weights of the adapter in the folder. Their names are those of [`parameters`].
pub fn open(folder: &Path, config: &Config, adapter: &AdapterConfig) -> Result<Checkpoint, Error> {
    let list = parameters(config, adapter)
        .map_err(|source| model_config::Error::Field { path: folder.join(CONFIG), source })?;
    let (weights, pickle) = (folder.join(WEIGHTS), folder.join(PICKLE));
    if !weights.exists() && pickle.exists() {
        return Err(Error::Pickle { path: pickle });
    }
    Checkpoint::open_files(folder, vec![weights], &list, |_| false)
}

/// Writes an adapter into an existing folder: its configuration and, last, its weights, as [`write_file`] does.
pub fn write(
    folder: &Path,
    adapter: &AdapterConfig,
    tensors: &[TensorInfo],
    bytes: impl FnMut(&TensorInfo) -> Result<Vec<u8>, Error>,
) -> Result<(), Error> {
    durable::write(&folder.join(CONFIG), adapter.to_json().as_bytes())?;
    write_file(&folder.join(WEIGHTS), tensors, Durability::Durable, bytes)
}
