//! Writes weights: deterministic bytes, each file atomically.

use std::io::Write;
use std::path::Path;

use podium_files::durable::{self, Durability};
use serde_json::{Map, json};

use crate::header::{self, TensorInfo};
use crate::{Error, INDEX, ONE_FILE};

/// Writes weights into a folder: `model.safetensors`, or, if they exceed `shard_bytes`, shards of
/// at most that size and their index. A larger tensor gets its own shard.
///
/// `bytes` returns the numbers of a tensor, little-endian. It is called for one tensor at a time,
/// in an order that the writer chooses. A single file replaces the folder's previous weights.
/// Several files cannot be replaced atomically, so a folder with weights is refused; use
/// [`durable::new_folder`] for shards.
pub fn write(
    folder: &Path,
    tensors: &[TensorInfo],
    shard_bytes: u64,
    mut bytes: impl FnMut(&TensorInfo) -> Result<Vec<u8>, Error>,
) -> Result<(), Error> {
    let shards = shards(tensors, shard_bytes);
    if shards.len() == 1 {
        return write_file(&folder.join(ONE_FILE), tensors, Durability::Durable, bytes);
    }
    if folder.join(ONE_FILE).exists() || folder.join(INDEX).exists() {
        return Err(Error::Occupied { path: folder.to_owned() });
    }
    let mut weight_map = Map::new();
    for (number, shard) in (1..).zip(&shards) {
        let name = format!("model-{number:05}-of-{:05}.safetensors", shards.len());
        write_file(&folder.join(&name), shard, Durability::Durable, &mut bytes)?;
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), name.clone().into())));
    }
    weight_map.sort_keys();
    let total_size: u64 = tensors.iter().map(TensorInfo::size).sum();
    let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
    Ok(durable::write(&folder.join(INDEX), format!("{index:#}\n").as_bytes())?)
}

/// Writes one safetensors file. `bytes` returns the numbers of a tensor, little-endian, and is
/// called for one tensor at a time.
pub fn write_file(
    path: &Path,
    tensors: &[TensorInfo],
    durability: Durability,
    mut bytes: impl FnMut(&TensorInfo) -> Result<Vec<u8>, Error>,
) -> Result<(), Error> {
    let mut by_name: Vec<_> = tensors.iter().collect();
    by_name.sort_by_key(|tensor| &tensor.name);
    durable::replace_as(path, durability, |file| {
        file.write_all(&header::format(&by_name)).map_err(Error::file("write", path))?;
        for tensor in by_name {
            let bytes = bytes(tensor)?;
            assert_eq!(bytes.len() as u64, tensor.size(), "bytes of tensor {}", tensor.name);
            file.write_all(&bytes).map_err(Error::file("write", path))?;
        }
        Ok(())
    })
}

/// Splits consecutive tensors into files; returns at least one file.
fn shards(tensors: &[TensorInfo], shard_bytes: u64) -> Vec<&[TensorInfo]> {
    let (mut shards, mut begin, mut size) = (Vec::new(), 0, 0);
    for (index, tensor) in tensors.iter().enumerate() {
        if index > begin && size + tensor.size() > shard_bytes {
            shards.push(&tensors[begin..index]);
            (begin, size) = (index, 0);
        }
        size += tensor.size();
    }
    shards.push(&tensors[begin..]);
    shards
}
