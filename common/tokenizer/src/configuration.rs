//! The names of a tokenizer's files, and JSON configurations as they are in their files.

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

/// A configuration as it is in its file.
pub(crate) type Config = Map<String, Value>;

/// The bytes of a file, none where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { action: "read", path: path.to_owned(), source }),
    }
}

/// The keys of a JSON object, none where there is no file.
pub(crate) fn read_config(path: &Path) -> Result<Config, Error> {
    let Some(bytes) = read(path)? else { return Ok(Config::new()) };
    lfs::refuse(&bytes, path)?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// The refusal of a value that a key of a file has.
pub(crate) fn wrong(path: &Path, key: &str, value: &Value, expected: &'static str) -> Error {
    let value: String = value.to_string().chars().take(200).collect();
    Error::Value { path: path.to_owned(), key: key.into(), value: value.into(), expected }
}
