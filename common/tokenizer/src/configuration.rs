//! Names of a tokenizer's files, and access to JSON configurations.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use podium_checkpoint::lfs;
use serde_json::{Map, Value};

use crate::error::Error;

pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(crate) const GENERATION_CONFIG: &str = "generation_config.json";
pub(crate) const MODEL_CONFIG: &str = "config.json";

/// The keys of a configuration file.
pub(crate) type Config = Map<String, Value>;

/// Returns the bytes of a file; `None` if the file does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { action: "read", path: path.to_owned(), source }),
    }
}

/// Returns the keys of a JSON object; empty if the file does not exist.
pub(crate) fn read_config(path: &Path) -> Result<Config, Error> {
    let Some(bytes) = read(path)? else { return Ok(Config::new()) };
    lfs::refuse(&bytes, path)?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// Returns the error for an invalid value of a key in a file.
pub(crate) fn wrong(path: &Path, key: &str, value: &Value, expected: &'static str) -> Error {
    let value: String = value.to_string().chars().take(200).collect();
    Error::Value { path: path.to_owned(), key: key.into(), value: value.into(), expected }
}
