//! Merges an adapter into its model's weights (`podium-learner merge`); writes a standard model folder.

use std::fs;
use std::path::{Path, PathBuf};

use podium_files::durable::{self, new_folder};
use podium_model::{checkpoint, merge};
use podium_service::progress::Progress;

/// The reasons why a model cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Model or adapter cannot be read, or the merged model cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The tokenizer's files cannot be copied.
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    /// The folder cannot be written.
    #[error(transparent)]
    Write(#[from] durable::Error),
    /// The configuration cannot be copied.
    #[error("cannot copy {}", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Writes the folder `out`, which must be empty or not exist. Configuration, tokenizer and template are copied
/// from `model`. The weights are computed in float32 and written in the model's own types, in shards of at most
/// `shard_bytes`.
pub fn run(model: &Path, adapter: &Path, out: &Path, shard_bytes: u64) -> Result<(), Error> {
    let mut progress = None;
    new_folder(out, |folder| {
        merge(model, adapter, folder, shard_bytes, |done, of| {
            progress.get_or_insert_with(|| Progress::new("merge", of as u64)).show(done as u64, String::new);
        })?;
        let path = model.join("config.json");
        fs::copy(&path, folder.join("config.json")).map_err(|source| Error::Copy { path, source })?;
        Ok::<_, Error>(podium_tokenizer::copy_files(model, folder)?)
    })?;
    progress.iter().for_each(Progress::finish);
    Ok(())
}
