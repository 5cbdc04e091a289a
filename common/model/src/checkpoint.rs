//! Weights of model folders as tensors. `podium_checkpoint` reads and writes the files.

use std::collections::BTreeMap;
use std::path::Path;

use podium_checkpoint::parameters::{self, Parameter};
use podium_checkpoint::{Checkpoint, TensorView};
use podium_files::durable::{self, Durability};
use tch::{Device, Kind, Tensor, no_grad};

pub use podium_checkpoint::{Dtype, Error, TensorInfo};

use crate::config::Config;
use crate::options::{LoadOptions, Precision};

/// Reads the parameters of the model in the folder, in model order.
pub(crate) fn read(
    folder: &Path,
    config: &Config,
    options: LoadOptions,
) -> Result<Vec<(String, Tensor)>, Error> {
    read_all(&Checkpoint::open(folder, config)?, &parameters::list(config), options.device, options.precision)
}

/// Reads the tensors of a checkpoint in the order of its list.
pub fn read_all(
    checkpoint: &Checkpoint,
    list: &[Parameter],
    device: Device,
    precision: Precision,
) -> Result<Vec<(String, Tensor)>, Error> {
    let read = |Parameter { name, .. }: &Parameter| {
        let tensor = tensor(&checkpoint.tensor(name)?);
        Ok((name.clone(), tensor.to_device(device).to_kind(precision.kind())))
    };
    list.iter().map(read).collect()
}

/// Copies the weights of the folder into `tensors`, the tensors of a policy with this
/// configuration.
pub(crate) fn assign(folder: &Path, config: &Config, tensors: &[(String, Tensor)]) -> Result<(), Error> {
    assign_all(&Checkpoint::open_version(folder, config)?, tensors)
}

/// Copies the weights of a checkpoint into `tensors`, in the order of its list.
pub(crate) fn assign_all(checkpoint: &Checkpoint, tensors: &[(String, Tensor)]) -> Result<(), Error> {
    for (name, old) in tensors {
        let new = tensor(&checkpoint.tensor(name)?);
        no_grad(|| old.shallow_clone().copy_(&new));
    }
    Ok(())
}

/// Requires that the weights of the folder have the bits of `tensors`, the tensors of a policy with this
/// configuration.
pub(crate) fn compare(folder: &Path, config: &Config, tensors: &[(String, Tensor)]) -> Result<(), Error> {
    let checkpoint = Checkpoint::open_version(folder, config)?;
    for (name, own) in tensors {
        let found = tensor(&checkpoint.tensor(name)?).to_device(own.device()).to_kind(own.kind());
        if !bits(&found).equal(&bits(own)) {
            return Err(Error::OtherBase { path: folder.to_owned(), tensor: name.clone() });
        }
    }
    Ok(())
}

/// Returns the bits of a tensor as integers.
fn bits(tensor: &Tensor) -> Tensor {
    tensor.view_dtype(if tensor.kind().elt_size_in_bytes() == 4 { Kind::Int } else { Kind::Int16 })
}

/// Writes the configuration and then the weights.
pub(crate) fn write(
    folder: &Path,
    config: &Config,
    tensors: &[(String, Tensor)],
    precision: Precision,
    durability: Durability,
) -> Result<(), Error> {
    durable::create_folder(folder)?;
    let config = config.to_json(precision.name());
    durable::write_as(&folder.join("config.json"), durability, config.as_bytes())?;
    write_file(&folder.join(podium_checkpoint::ONE_FILE), tensors, precision, durability)
}

/// Writes tensors of one type into one safetensors file.
pub fn write_file(
    path: &Path,
    tensors: &[(String, Tensor)],
    precision: Precision,
    durability: Durability,
) -> Result<(), Error> {
    let dtype = precision.dtype();
    let info =
        |(name, tensor): &(String, Tensor)| TensorInfo { name: name.clone(), dtype, shape: tensor.size() };
    let infos: Vec<_> = tensors.iter().map(info).collect();
    let by_name: BTreeMap<_, _> = tensors.iter().map(|(name, tensor)| (name, tensor)).collect();
    podium_checkpoint::write_file(path, &infos, durability, |info| Ok(bytes(by_name[&info.name])))
}

/// Returns a copy of a tensor of a file, on the CPU.
pub(crate) fn tensor(view: &TensorView) -> Tensor {
    Tensor::from_data_size(view.bytes(), view.shape(), kind(view.dtype()))
}

pub(crate) fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
    }
}

/// Returns the bytes of a tensor in memory order.
pub fn bytes(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let numbers = tensor.numel();
    let mut bytes = vec![0; numbers * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, numbers);
    bytes
}
