//! Version 0: the policy that a run begins with, copied from `model.path` and `lora.adapter`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_transfer::manifest::{self, Manifest};

use super::error::Error;

/// Extension of weight files.
const WEIGHTS: &str = "safetensors";
/// The folder in which version 0 is written.
pub(super) const IMPORT: &str = ".0-import.partial";
/// The files of a PEFT folder.
pub(super) const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// Sources of version 0.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Folder of the model; needed at the first start, and to restore version 0.
    pub model: Option<PathBuf>,
    /// Folder of the adapter that the run continues from.
    pub adapter: Option<PathBuf>,
}

impl Start {
    /// Copies the start to version 0 under `root`.
    pub(super) fn import(&self, root: &Path, run_hash: &str) -> Result<Manifest, Error> {
        let (manifest, partial) = self.copy(root, run_hash)?;
        durable::publish_folder(&partial, &root.join("0"))?;
        Ok(manifest)
    }

    /// Copies the start into a hidden folder under `root`, and returns its manifest.
    pub(super) fn copy(&self, root: &Path, run_hash: &str) -> Result<(Manifest, PathBuf), Error> {
        let Self { model: Some(start), adapter } = self else { return Err(Error::NoStart) };
        let unreadable = |source| Error::Start {
            folder: start.to_owned(),
            source: manifest::Error::Folder { folder: start.to_owned(), source },
        };
        let partial = root.join(IMPORT);
        durable::remove_folder(&partial)?;
        durable::create_folder(&partial)?;
        let mut has_weights = false;
        for entry in fs::read_dir(start).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if belongs(&name) && entry.path().is_file() {
                has_weights |= has_extension(&name, WEIGHTS);
                copy_file(&entry.path(), &partial.join(&name))?;
            }
        }
        let tokenizer = podium_tokenizer::tokenizer_files(start);
        for name in tokenizer.map_err(|error| unreadable(io::Error::other(error)))? {
            // Copies files in subfolders; the files of the folder itself are copied already.
            if let Some((folder, _)) = name.split_once('/') {
                durable::create_folder(&partial.join(folder))?;
                copy_file(&start.join(&name), &partial.join(&name))?;
            }
        }
        for (folder, name) in adapter.iter().flat_map(|folder| ADAPTER.map(|name| (folder, name))) {
            copy_file(&folder.join(name), &partial.join(name))?;
        }
        if !has_weights {
            return Err(Error::NoWeights { folder: start.to_owned() });
        }
        let described = manifest::fingerprint(&partial)
            .and_then(|print| manifest::describe(&partial, PolicyVersion::START, run_hash, &print));
        let manifest = described.map_err(|source| Error::Start { folder: start.to_owned(), source })?;
        Ok((manifest, partial))
    }
}

/// Returns whether a file of a policy folder belongs to the policy.
fn belongs(name: &str) -> bool {
    if ADAPTER.contains(&name) {
        return false;
    }
    let tokenizer = name.starts_with("tokenizer") && has_extension(name, "json");
    let named = [
        "added_tokens.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "special_tokens_map.json",
    ];
    named.contains(&name) || tokenizer || (has_extension(name, WEIGHTS) && !name.starts_with('.'))
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// Copies a file and waits until it is durable.
fn copy_file(from: &Path, to: &Path) -> Result<(), Error> {
    let copied = fs::copy(from, to).and_then(|_| fs::File::open(to)?.sync_all());
    copied.map_err(|source| Error::Copy { path: from.to_owned(), source })
}
