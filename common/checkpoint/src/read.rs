//! Reads memory-mapped weights. All files are checked first; then tensors are read and released one
//! after another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use memmap2::Mmap;
use serde::Deserialize;

use crate::config::Config;
use crate::header::{self, Dtype, Entry, TensorInfo};
use crate::parameters::{self, Parameter};
use crate::view::TensorView;
use crate::{Error, INDEX, ONE_FILE, lfs, redundant};

/// The files of a checkpoint with all tensors in the expected shapes.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<(PathBuf, Mmap)>,
    /// File and position of each tensor.
    entries: BTreeMap<String, (usize, Entry)>,
    /// The same for redundant tensors.
    redundant: BTreeMap<String, (usize, Entry)>,
}

impl Checkpoint {
    /// Opens the weights of a model folder for a model with this configuration.
    pub fn open(folder: &Path, config: &Config) -> Result<Self, Error> {
        let redundant = |tensor: &str| redundant::is_redundant(config, tensor);
        let checkpoint = Self::open_files(folder, files(folder)?, &parameters::list(config), redundant)?;
        for (tensor, at) in &checkpoint.redundant {
            let view = checkpoint.view(tensor, at)?;
            let own = |name: &str| checkpoint.tensor(name);
            if let Some(expected) = redundant::contradiction(config, tensor, &view, own)? {
                let (path, tensor) = (checkpoint.files[at.0].0.clone(), tensor.clone());
                return Err(Error::Contradiction { path, tensor, expected });
            }
        }
        Ok(checkpoint)
    }

    /// Opens the weights of a folder whose own configuration must describe the same architecture as `config`.
    pub fn open_version(folder: &Path, config: &Config) -> Result<Self, Error> {
        if Config::load(folder)?.same_architecture(config) {
            Self::open(folder, config)
        } else {
            Err(Error::Architecture { path: folder.to_owned() })
        }
    }

    /// Opens files of one folder that together contain each listed tensor exactly once. Only
    /// tensors of `redundant` may be present in addition.
    pub fn open_files(
        folder: &Path,
        files: Vec<PathBuf>,
        list: &[Parameter],
        redundant: impl Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        let expected: BTreeMap<_, _> =
            list.iter().map(|parameter| (&parameter.name, &parameter.shape)).collect();
        let mut checkpoint = Self { files: Vec::new(), entries: BTreeMap::new(), redundant: BTreeMap::new() };
        for path in files {
            let map = map(&path)?;
            let header =
                header::parse(&map).map_err(|source| Error::Header { path: path.clone(), source })?;
            for (tensor, entry) in header {
                let entries = match expected.get(&tensor) {
                    Some(shape) if entry.shape.iter().map(|size| *size as i64).eq(shape.iter().copied()) => {
                        &mut checkpoint.entries
                    }
                    Some(shape) => {
                        let expected = (*shape).clone();
                        return Err(Error::Shape { path, tensor, found: entry.shape, expected });
                    }
                    None if redundant(&tensor) => &mut checkpoint.redundant,
                    None => return Err(Error::Unexpected { path, tensor }),
                };
                if entries.insert(tensor.clone(), (checkpoint.files.len(), entry)).is_some() {
                    return Err(Error::Twice { path, tensor });
                }
            }
            checkpoint.files.push((path, map));
        }
        match list.iter().find(|parameter| !checkpoint.entries.contains_key(&parameter.name)) {
            None => Ok(checkpoint),
            Some(parameter) => Err(Error::Missing {
                path: folder.to_owned(),
                tensor: parameter.name.clone(),
                expected: parameter.shape.clone(),
            }),
        }
    }

    /// Returns the type and shape of a tensor of the checkpoint's list.
    pub fn info(&self, name: &str) -> TensorInfo {
        info(name, &self.entries[name].1)
    }

    /// Returns a tensor of the checkpoint's list. All its numbers are finite.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.view(name, &self.entries[name])
    }

    fn view(&self, name: &str, (file, entry): &(usize, Entry)) -> Result<TensorView<'_>, Error> {
        let (path, map) = &self.files[*file];
        let range = entry.range.0 as usize..entry.range.1 as usize;
        let view = TensorView { info: info(name, entry), map, range };
        if all_finite(view.bytes(), entry.dtype) {
            Ok(view)
        } else {
            Err(Error::NotFinite { path: path.clone(), tensor: name.to_owned() })
        }
    }
}

fn info(name: &str, entry: &Entry) -> TensorInfo {
    let shape = entry.shape.iter().map(|size| *size as i64).collect();
    TensorInfo { name: name.to_owned(), dtype: entry.dtype, shape }
}

/// Returns whether all numbers are finite. The exponent of infinity and NaN is all ones.
fn all_finite(bytes: &[u8], dtype: Dtype) -> bool {
    fn all<const N: usize>(bytes: &[u8], finite: impl Fn([u8; N]) -> bool) -> bool {
        // No early exit within a block, so that it compiles to vector instructions.
        let block = |block: &[u8]| block.as_chunks().0.iter().fold(true, |all, number| all & finite(*number));
        bytes.chunks(4096).all(block)
    }
    match dtype {
        Dtype::F32 => all(bytes, |number| u32::from_le_bytes(number) & 0x7f80_0000 != 0x7f80_0000),
        Dtype::BF16 => all(bytes, |number| u16::from_le_bytes(number) & 0x7f80 != 0x7f80),
        Dtype::F16 => all(bytes, |number| u16::from_le_bytes(number) & 0x7c00 != 0x7c00),
    }
}

/// Returns the safetensors files of a model folder, in a fixed order. A single file takes precedence over an
/// index, as in Transformers.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let (one, path) = (folder.join(ONE_FILE), folder.join(INDEX));
    if one.exists() || !path.exists() {
        return match other_format(folder) {
            Some(found) if !one.exists() => Err(Error::OtherFormat { path: folder.to_owned(), found }),
            _ => Ok(vec![one]),
        };
    }
    let text = fs::read(&path).map_err(Error::file("read", &path))?;
    lfs::refuse(&text, &path)?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|source| Error::Index { path: path.clone(), source })?;
    let names: BTreeSet<_> = index.weight_map.into_values().collect();
    let entry = |name: String| {
        let mut components = Path::new(&name).components();
        match (components.next(), components.next()) {
            (Some(Component::Normal(_)), None) => Ok(folder.join(name)),
            _ => Err(Error::ShardName { path: path.clone(), name }),
        }
    };
    names.into_iter().map(entry).collect()
}

/// Returns the first file of the folder, by name, that may be weights of another format, or a shard without its
/// index.
fn other_format(folder: &Path) -> Option<String> {
    // Names of trainer state beside weights.
    const BESIDE: [&str; 4] = ["training_args", "optimizer", "scheduler", "rng_state"];
    const ENDINGS: [&str; 8] = ["bin", "ckpt", "gguf", "h5", "msgpack", "pt", "pth", "safetensors"];
    let names = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_weights = |name: &String| {
        Path::new(name).extension().is_some_and(|end| ENDINGS.iter().any(|one| end.eq_ignore_ascii_case(one)))
    };
    names.filter(|name| is_weights(name) && !BESIDE.iter().any(|start| name.starts_with(start))).min()
}

fn map(path: &Path) -> Result<Mmap, Error> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    #[allow(unsafe_code, reason = "a mapped file is read without a second copy in memory")]
    // SAFETY: published files are never changed in place: a writer renames a finished file over them, which leaves
    // this mapping intact.
    let map = unsafe { Mmap::map(&file) };
    let map = map.map_err(Error::file("map", path))?;
    lfs::refuse(&map, path)?;
    Ok(map)
}
