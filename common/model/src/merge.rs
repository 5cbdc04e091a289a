//! Merges an adapter's changes into the weights of its model, file to file.

use std::path::Path;

use podium_checkpoint::{Checkpoint, TensorInfo, parameters, write};
use tch::Kind;

use crate::adapter::Adapter;
use crate::checkpoint::{Error, bytes, kind, tensor};
use crate::config::Config;
use crate::options::LoadOptions;

/// Writes the weights of `model` with the changes of the PEFT adapter in `adapter` into the folder `out`. Every
/// parameter is computed in float32 and written in the type of the model's file, in shards of at most
/// `shard_bytes` if necessary. Only one parameter is in memory at a time.
///
/// `done` receives the number of written parameters and the total.
pub fn merge(
    model: &Path,
    adapter: &Path,
    out: &Path,
    shard_bytes: u64,
    mut done: impl FnMut(usize, usize),
) -> Result<(), Error> {
    let config = Config::load(model)?;
    let adapter = Adapter::load(adapter, &config, LoadOptions::default())?;
    let checkpoint = Checkpoint::open(model, &config)?;
    let list: Vec<TensorInfo> =
        parameters::list(&config).iter().map(|parameter| checkpoint.info(&parameter.name)).collect();
    let mut count = 0;
    write(out, &list, shard_bytes, |info| {
        let weight = tensor(&checkpoint.tensor(&info.name)?);
        let module = info.name.strip_suffix(".weight").unwrap_or(&info.name);
        let weight = match adapter.change(module) {
            Some(change) => (weight.to_kind(Kind::Float) + change).to_kind(kind(info.dtype)),
            None => weight,
        };
        count += 1;
        done(count, list.len());
        Ok(bytes(&weight))
    })
}
