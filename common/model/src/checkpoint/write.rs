//! Writing weights: the same bytes for the same weights, each file whole or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use tch::{Device, Tensor};

use super::Error;
use super::header::{self, Dtype};
use crate::config::Config;
use crate::policy::Precision;

/// Writes the configuration and, last, the weights.
pub(crate) fn write(
    folder: &Path,
    config: &Config,
    tensors: &[(String, Tensor)],
    precision: Precision,
) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| failed("create", folder, source))?;
    let (dtype, dtype_name) = match precision {
        Precision::Float32 => (Dtype::F32, "float32"),
        Precision::Bfloat16 => (Dtype::BF16, "bfloat16"),
    };
    replace(&folder.join("config.json"), |file| file.write_all(config.to_json(dtype_name).as_bytes()))?;
    replace(&folder.join("model.safetensors"), |file| {
        let mut by_name: Vec<_> =
            tensors.iter().map(|(name, tensor)| (name, tensor, tensor.size())).collect();
        by_name.sort_by_key(|(name, ..)| *name);
        let entries = by_name.iter().map(|(name, _, shape)| (name.as_str(), dtype, shape.as_slice()));
        file.write_all(&header::format(entries))?;
        for (_, tensor, _) in by_name {
            file.write_all(&bytes(tensor))?;
        }
        Ok(())
    })
}

/// The numbers of a tensor in memory order.
fn bytes(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let numbers = tensor.numel();
    let mut bytes = vec![0; numbers * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, numbers);
    bytes
}

/// Puts a new file at `path`, whole and safe on disk, or leaves what was there.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), std::io::Error>,
) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.part", std::process::id()));
    let create = || {
        let mut file = BufWriter::new(File::create(&temporary)?);
        write(&mut file)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    create().map_err(|source| {
        // The disk may be full: make room for others. The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        failed("write", path, source)
    })
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { action, path: path.to_owned(), source }
}
