//! Reads the tokenizer files of a model folder.

use std::fs;
use std::path::Path;

use podium_checkpoint::lfs;
use serde_json::Value;

use crate::configuration::{
    GENERATION_CONFIG, MODEL_CONFIG, TOKENIZER, TOKENIZER_CONFIG, read_config, wrong,
};
use crate::declarations::Declarations;
use crate::error::Error;
use crate::templates::{Choice, choose};

/// Content of the files.
pub(crate) struct Folder {
    pub(crate) tokenizer: Vec<u8>,
    /// The file of the chat template, and the template.
    pub(crate) chat_template: Choice<(std::path::PathBuf, String)>,
    pub(crate) declarations: Declarations,
    /// Whether special tokens in a text are split like any other text.
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
            // Some folders use -1 for no padding token.
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

/// Returns the `eos_token_id` of a configuration, which has one token or several.
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
