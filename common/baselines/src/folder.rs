//! The files of a training: its inputs, the state of each trial, and the results.
//!
//! ```text
//! training.json                       the inputs; a training with others is refused
//! <model>/trial-<n>.json              settings, metrics by epoch, position of the state
//! <model>/trial-<n>-<epoch>.safetensors   weights, moments and best weights after that epoch
//! <model>/model.safetensors           weights of the best trial
//! <model>/test.safetensors            scores of all items for each held-out user
//! baselines.json                      the finished models, written last
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_files::durable;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::Error;

/// Name of the file with the inputs.
const INPUTS: &str = "training.json";

/// Reads a JSON file; `None` if it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let content = serde_json::from_slice(&text);
    content.map(Some).map_err(|source| Error::Content { path: path.to_owned(), expected, source })
}

/// Writes a JSON file.
pub(crate) fn write_json(path: &Path, content: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(content).expect("plain data");
    Ok(durable::write(path, format!("{text}\n").as_bytes())?)
}

/// Creates the folder of a training with these inputs, or checks that it belongs to one.
pub(crate) fn open(folder: &Path, inputs: &Value) -> Result<(), Error> {
    durable::create_folder(folder)?;
    let path = folder.join(INPUTS);
    let Some(found) = read_json::<Value>(&path, "the inputs of a training")? else {
        return write_json(&path, inputs);
    };
    let fields = inputs.as_object().into_iter().flatten();
    for (field, expected) in fields {
        if found.get(field) != Some(expected) {
            let text = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
            return Err(Error::OtherTraining {
                folder: folder.to_owned(),
                field: field.clone(),
                found: text(found.get(field)),
                expected: text(Some(expected)),
            });
        }
    }
    Ok(())
}

/// Removes all files of a folder whose names begin with `prefix`, except `keep`.
pub(crate) fn remove_others(folder: &Path, prefix: &str, keep: Option<&Path>) -> Result<(), Error> {
    let failed = |path: &Path, source| Error::Read { path: path.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(|source| failed(folder, source))? {
        let path: PathBuf = entry.map_err(|source| failed(folder, source))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(prefix) && Some(path.as_path()) != keep {
            fs::remove_file(&path).map_err(|source| Error::Remove { path, source })?;
        }
    }
    Ok(())
}
