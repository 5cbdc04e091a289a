//! Writes weights: deterministic bytes, each file atomically.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, json};

use crate::header::{self, TensorInfo};
use crate::{Error, INDEX, ONE_FILE};

/// Writes weights into a folder: `model.safetensors`, or, if they exceed `shard_bytes`, shards of at most that size
/// (a larger tensor gets its own shard) and their index.
///
/// `bytes` returns the numbers of a tensor, little-endian; it is called for one tensor at a time, in an order chosen
/// by the writer. A single file atomically replaces the folder's previous weights; shards cannot, and are refused
/// there: use [`new_folder`].
pub fn write<E: From<Error>>(
    folder: &Path,
    tensors: &[TensorInfo],
    shard_bytes: u64,
    mut bytes: impl FnMut(&TensorInfo) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let shards = shards(tensors, shard_bytes);
    if shards.len() == 1 {
        return write_file(&folder.join(ONE_FILE), tensors, bytes);
    }
    if folder.join(ONE_FILE).exists() || folder.join(INDEX).exists() {
        return Err(Error::Occupied { path: folder.to_owned() }.into());
    }
    let mut weight_map = Map::new();
    for (number, shard) in (1..).zip(&shards) {
        let name = format!("model-{number:05}-of-{:05}.safetensors", shards.len());
        write_file(&folder.join(&name), shard, &mut bytes)?;
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), name.clone().into())));
    }
    weight_map.sort_keys();
    let total_size: u64 = tensors.iter().map(TensorInfo::size).sum();
    let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
    Ok(replace(&folder.join(INDEX), format!("{index:#}\n").as_bytes())?)
}

/// Writes one safetensors file. `bytes` returns the numbers of a tensor, little-endian, and is called for one tensor
/// at a time.
pub fn write_file<E: From<Error>>(
    path: &Path,
    tensors: &[TensorInfo],
    mut bytes: impl FnMut(&TensorInfo) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let mut by_name: Vec<_> = tensors.iter().collect();
    by_name.sort_by_key(|tensor| &tensor.name);
    replace_with(path, |file| {
        file.write_all(&header::format(&by_name)).map_err(Error::file("write", path))?;
        for tensor in by_name {
            let bytes = bytes(tensor)?;
            assert_eq!(bytes.len() as u64, tensor.size(), "bytes of tensor {}", tensor.name);
            file.write_all(&bytes).map_err(Error::file("write", path))?;
        }
        Ok(())
    })
}

/// Splits consecutive tensors into files; at least one file.
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

/// Writes a file to `path` atomically and durably; on failure the previous file is unchanged.
pub fn replace(path: &Path, contents: &[u8]) -> Result<(), Error> {
    replace_with(path, |file| file.write_all(contents).map_err(Error::file("write", path)))
}

fn replace_with<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let temporary = beside(path, &format!(".{}.part", std::process::id()));
    let failed = || Error::file("write", path);
    let create = || {
        let mut file = File::create(&temporary).map_err(failed())?;
        write(&mut file)?;
        file.sync_all().map_err(failed())?;
        fs::rename(&temporary, path).map_err(failed())?;
        sync(parent(path))?;
        Ok(())
    };
    create().inspect_err(|_| {
        // The disk may be full: release space for others. The first error is reported.
        let _ = fs::remove_file(&temporary);
    })
}

/// Creates a folder with the content written by `fill`, atomically and durably. The path must not exist or be an
/// empty folder. The next attempt removes the rest of an interrupted one.
pub fn new_folder<E: From<Error>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let temporary = beside(path, ".part");
    let remove = || if temporary.exists() { fs::remove_dir_all(&temporary) } else { Ok(()) };
    let failed = || Error::file("write", path);
    // Renaming would detect it as well, but after the work.
    if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(failed()(std::io::ErrorKind::DirectoryNotEmpty.into()).into());
    }
    let create = || {
        remove().map_err(failed())?;
        fs::create_dir_all(&temporary).map_err(failed())?;
        fill(&temporary)?;
        for entry in fs::read_dir(&temporary).map_err(failed())? {
            sync(&entry.map_err(failed())?.path())?;
        }
        sync(&temporary)?;
        fs::rename(&temporary, path).map_err(failed())?;
        sync(parent(path))?;
        Ok(())
    };
    create().inspect_err(|_| {
        let _ = remove();
    })
}

/// A hidden name in the same folder, and so on the same disk.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{suffix}"))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs a file or a folder's list of files to disk.
fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::file("write", path))
}
