//! A model with an adapter worked into its weights (`podium-learner merge`), as a folder that any program loads.

use std::fs;
use std::path::{Path, PathBuf};

use podium_checkpoint::new_folder;
use podium_model::{checkpoint, merge};
use podium_service::progress::Progress;

/// Why there is no merged model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Model or adapter cannot be read, or the merged model cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The tokenizer's files cannot be copied.
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    /// The configuration cannot be copied.
    #[error("cannot copy {}", path.display())]
    Copy {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes the folder `out`, which must not exist or be empty: configuration, tokenizer and template as they are in `model`,
/// the weights computed in float32 and written in the model's own types, in shards of at most `shard_bytes`.
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
