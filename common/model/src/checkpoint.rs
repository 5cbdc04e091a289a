//! Weights of model folders as tensors. Their files are the business of `podium_checkpoint`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use podium_checkpoint::{Checkpoint, TensorView, parameters};
use tch::{Device, Kind, Tensor, no_grad};

pub use podium_checkpoint::header::Error as HeaderError;
pub use podium_checkpoint::{Dtype, Error, TensorInfo};

use crate::config::Config;
use crate::policy::{LoadOptions, Precision};

/// The parameters of the model in the folder, in model order.
pub(crate) fn read(
    folder: &Path,
    config: &Config,
    options: LoadOptions,
) -> Result<Vec<(String, Tensor)>, Error> {
    let checkpoint = Checkpoint::open(folder, config)?;
    let read = |name: String| {
        let tensor = tensor(&checkpoint.tensor(&name)?);
        Ok((name, tensor.to_device(options.device).to_kind(options.precision.kind())))
    };
    parameters::list(config).into_iter().map(|parameter| read(parameter.name)).collect()
}

/// Copies the weights of the folder into `tensors`, which are those of a policy with this configuration.
pub(crate) fn assign(folder: &Path, config: &Config, tensors: &[(String, Tensor)]) -> Result<(), Error> {
    let checkpoint = Checkpoint::open_version(folder, config)?;
    for (name, old) in tensors {
        let new = tensor(&checkpoint.tensor(name)?);
        no_grad(|| old.shallow_clone().copy_(&new));
    }
    Ok(())
}

/// Writes the configuration and, last, the weights.
pub(crate) fn write(
    folder: &Path,
    config: &Config,
    tensors: &[(String, Tensor)],
    precision: Precision,
) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::File {
        action: "create",
        path: folder.to_owned(),
        source,
    })?;
    let (dtype, dtype_name) = match precision {
        Precision::Float32 => (Dtype::F32, "float32"),
        Precision::Bfloat16 => (Dtype::BF16, "bfloat16"),
    };
    podium_checkpoint::replace(&folder.join("config.json"), config.to_json(dtype_name).as_bytes())?;
    let info =
        |(name, tensor): &(String, Tensor)| TensorInfo { name: name.clone(), dtype, shape: tensor.size() };
    let infos: Vec<_> = tensors.iter().map(info).collect();
    let by_name: BTreeMap<_, _> = tensors.iter().map(|(name, tensor)| (name, tensor)).collect();
    podium_checkpoint::write(folder, &infos, u64::MAX, |info| Ok(bytes(by_name[&info.name])))
}

/// A copy of a tensor of a file, on the CPU.
pub(crate) fn tensor(view: &TensorView) -> Tensor {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
    };
    Tensor::from_data_size(view.bytes(), view.shape(), kind)
}

/// The numbers of a tensor in memory order.
pub(crate) fn bytes(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let numbers = tensor.numel();
    let mut bytes = vec![0; numbers * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, numbers);
    bytes
}
