//! Reading weights, memory-mapped: at no time is more than one tensor held twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use memmap2::Mmap;
use serde::Deserialize;
use tch::{Device, Kind, Tensor, no_grad};

use super::Error;
use super::header::{self, Dtype, Entry};
use crate::config::Config;
use crate::parameters::{self, Parameter};
use crate::policy::LoadOptions;

const ONE_FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The parameters of the model in the folder, in model order.
pub(crate) fn read(
    folder: &Path,
    config: &Config,
    options: LoadOptions,
) -> Result<Vec<(String, Tensor)>, Error> {
    let list = parameters::list(config);
    let checkpoint = Checkpoint::open(folder, config, &list)?;
    let read = |parameter: Parameter| {
        let tensor = checkpoint.tensor(&parameter.name)?;
        let tensor = tensor.to_device(options.device).to_kind(options.precision.kind());
        Ok((parameter.name, tensor))
    };
    list.into_iter().map(read).collect()
}

/// Copies the weights of the folder into `tensors`, which are those of a policy with this configuration.
pub(crate) fn assign(folder: &Path, config: &Config, tensors: &[(String, Tensor)]) -> Result<(), Error> {
    if !Config::load(folder)?.same_architecture(config) {
        return Err(Error::Architecture { path: folder.to_owned() });
    }
    let checkpoint = Checkpoint::open(folder, config, &parameters::list(config))?;
    for (name, tensor) in tensors {
        let new = checkpoint.tensor(name)?;
        no_grad(|| tensor.shallow_clone().copy_(&new));
    }
    Ok(())
}

/// The files of a checkpoint whose tensors are all there and of the right shapes.
struct Checkpoint {
    files: Vec<(PathBuf, Mmap)>,
    /// File and place of each tensor.
    entries: BTreeMap<String, (usize, Entry)>,
}

impl Checkpoint {
    fn open(folder: &Path, config: &Config, list: &[Parameter]) -> Result<Self, Error> {
        let expected: BTreeMap<_, _> =
            list.iter().map(|parameter| (&parameter.name, &parameter.shape)).collect();
        let mut checkpoint = Self { files: Vec::new(), entries: BTreeMap::new() };
        for path in files(folder)? {
            let map = map(&path)?;
            let header =
                header::parse(&map).map_err(|source| Error::Header { path: path.clone(), source })?;
            for (tensor, entry) in header {
                let Some(shape) = expected.get(&tensor) else {
                    if is_derived(&tensor, config) {
                        continue;
                    }
                    return Err(Error::Unexpected { path, tensor });
                };
                if !entry.shape.iter().map(|size| *size as i64).eq(shape.iter().copied()) {
                    return Err(Error::Shape {
                        path,
                        tensor,
                        found: entry.shape,
                        expected: (*shape).clone(),
                    });
                }
                let file = checkpoint.files.len();
                if checkpoint.entries.insert(tensor.clone(), (file, entry)).is_some() {
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

    /// A tensor of the list that the checkpoint was opened with, on the CPU.
    fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        let (file, entry) = &self.entries[name];
        let (path, map) = &self.files[*file];
        let shape: Vec<_> = entry.shape.iter().map(|size| *size as i64).collect();
        let kind = match entry.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F16 => Kind::Half,
        };
        let (begin, end) = entry.range;
        let tensor = Tensor::from_data_size(&map[begin as usize..end as usize], &shape, kind);
        if tensor.isfinite().all().int64_value(&[]) == 0 {
            return Err(Error::NotFinite { path: path.clone(), tensor: name.to_owned() });
        }
        debug_assert_eq!(tensor.device(), Device::Cpu);
        Ok(tensor)
    }
}

/// Tensors that some checkpoints hold although they follow from others.
fn is_derived(tensor: &str, config: &Config) -> bool {
    (config.tie_word_embeddings && tensor == parameters::HEAD) || tensor.ends_with(".rotary_emb.inv_freq")
}

/// The safetensors files of a model folder, in a fixed order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = folder.join(INDEX);
    if !path.exists() {
        return Ok(vec![folder.join(ONE_FILE)]);
    }
    let text =
        fs::read(&path).map_err(|source| Error::File { action: "read", path: path.clone(), source })?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|source| Error::Index { path: path.clone(), source })?;
    let names: BTreeSet<_> = index.weight_map.into_values().collect();
    let place = |name: String| {
        let mut components = Path::new(&name).components();
        match (components.next(), components.next()) {
            (Some(Component::Normal(_)), None) => Ok(folder.join(name)),
            _ => Err(Error::ShardName { path: path.clone(), name }),
        }
    };
    names.into_iter().map(place).collect()
}

fn map(path: &Path) -> Result<Mmap, Error> {
    let file =
        File::open(path).map_err(|source| Error::File { action: "open", path: path.to_owned(), source })?;
    #[allow(unsafe_code, reason = "a mapped file is read without a second copy in memory")]
    // SAFETY: nobody changes a published file in place: whoever writes one moves a finished file over it, which leaves
    // this mapping as it is.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(|source| Error::File { action: "map", path: path.to_owned(), source })
}
