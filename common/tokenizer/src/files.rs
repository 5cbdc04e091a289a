//! The tokenizer's files in a model folder.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use podium_checkpoint::lfs;
use serde_json::{Map, Value};

use crate::Error;
use crate::declarations::Declarations;
use crate::templates::{ADDITIONAL, CHAT_TEMPLATE, Choice, choose, further};

pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(crate) const GENERATION_CONFIG: &str = "generation_config.json";
const MODEL_CONFIG: &str = "config.json";

/// Tokenizer files that are copied into every policy version, in addition to the folder of additional templates. The
/// model's own files are not included.
const COPIED: [&str; 8] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    CHAT_TEMPLATE,
    GENERATION_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// A configuration file as a JSON object.
pub(crate) type Config = Map<String, Value>;

/// Returns the tokenizer files that exist in a model folder, as relative paths such as `tokenizer.json` and
/// `additional_chat_templates/tool_use.jinja`.
pub fn tokenizer_files(folder: &Path) -> Result<Vec<String>, Error> {
    let own = COPIED.into_iter().filter(|name| folder.join(name).is_file()).map(str::to_owned);
    let further = further(folder)?.into_iter();
    Ok(own.chain(further.map(|(name, _)| format!("{ADDITIONAL}/{name}.jinja"))).collect())
}

/// Copies the existing tokenizer files from one model folder into another.
pub fn copy_files(from: &Path, to: &Path) -> Result<(), Error> {
    for name in tokenizer_files(from)? {
        let (source_path, path) = (from.join(&name), to.join(&name));
        let copied =
            path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(&source_path, &path));
        copied.map_err(|source| Error::File { action: "write", path, source })?;
    }
    Ok(())
}

/// Parsed contents of the files.
pub(crate) struct Folder {
    pub(crate) tokenizer: Vec<u8>,
    /// The chat template and its file.
    pub(crate) chat_template: Choice<(std::path::PathBuf, String)>,
    pub(crate) declarations: Declarations,
    /// Whether special tokens written out in a text are encoded as ordinary text.
    pub(crate) split_special_tokens: bool,
    pub(crate) stop_token_ids: Vec<u32>,
    pub(crate) padding_ids: Vec<u32>,
}

impl Folder {
    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(TOKENIZER);
        let tokenizer =
            fs::read(&path).map_err(|source| Error::File { action: "read", path: path.clone(), source })?;
        lfs::refuse(&tokenizer, &path)?;
        let path = folder.join(TOKENIZER_CONFIG);
        let config = read_config(&path)?;
        let key = "split_special_tokens";
        let split_special_tokens = match config.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(split)) => *split,
            Some(other) => return Err(wrong(&path, key, other, "true or false")),
        };
        let (mut stop_token_ids, mut padding_ids) = (Vec::new(), Vec::new());
        for name in [GENERATION_CONFIG, MODEL_CONFIG] {
            let path = folder.join(name);
            stop_token_ids.extend(end_tokens(&path)?);
            // Some folders have -1 here for no padding token.
            let padding = read_config(&path)?.get("pad_token_id").and_then(Value::as_u64);
            padding_ids.extend(padding.and_then(|id| u32::try_from(id).ok()));
        }
        Ok(Self {
            tokenizer,
            chat_template: choose(folder, &config)?,
            declarations: Declarations::read(folder, &config)?,
            split_special_tokens,
            stop_token_ids,
            padding_ids,
        })
    }
}

/// Reads `eos_token_id` of a configuration: one id or several.
fn end_tokens(path: &Path) -> Result<Vec<u32>, Error> {
    let key = "eos_token_id";
    let config = read_config(path)?;
    let Some(value) = config.get(key).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match value {
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    };
    ids.ok_or_else(|| wrong(path, key, value, "a token id or a list of token ids"))
}

/// Reads a file; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { action: "read", path: path.to_owned(), source }),
    }
}

/// Reads a JSON object; empty if the file does not exist.
pub(crate) fn read_config(path: &Path) -> Result<Config, Error> {
    let Some(bytes) = read(path)? else { return Ok(Config::new()) };
    lfs::refuse(&bytes, path)?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// Returns the error for an invalid value of a key.
pub(crate) fn wrong(path: &Path, key: &str, value: &Value, expected: &'static str) -> Error {
    let value: String = value.to_string().chars().take(200).collect();
    Error::Value { path: path.to_owned(), key: key.into(), value: value.into(), expected }
}
