//! The files of a model folder that say how text becomes tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use podium_checkpoint::lfs;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Error;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const GENERATION_CONFIG: &str = "generation_config.json";
const MODEL_CONFIG: &str = "config.json";

/// Everything of a tokenizer that a policy version carries along. The model's own files are not among them.
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

/// Copies the tokenizer's files, as far as they are there, from one model folder into another.
pub fn copy_files(from: &Path, to: &Path) -> Result<(), Error> {
    for name in COPIED {
        let (source_path, path) = (from.join(name), to.join(name));
        if source_path.exists() {
            fs::copy(&source_path, &path).map_err(|source| Error::File { action: "write", path, source })?;
        }
    }
    Ok(())
}

/// What the files say.
pub(crate) struct Folder {
    pub(crate) tokenizer: Vec<u8>,
    pub(crate) chat_template: Option<String>,
    /// `bos_token`, `eos_token` and the like, by name.
    pub(crate) special_tokens: BTreeMap<String, String>,
    pub(crate) stop_token_ids: Vec<u32>,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// One template, or several of which one is the default.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Several(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// A token by itself, or with the properties it has in the vocabulary.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Plain(String),
    Detailed { content: String },
}

/// The part of `generation_config.json` and of `config.json` that is read here.
#[derive(Default, Deserialize)]
struct EndTokens {
    eos_token_id: Option<OneOrSeveral>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrSeveral {
    One(u32),
    Several(Vec<u32>),
}

impl Folder {
    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(TOKENIZER);
        let tokenizer = match fs::read(&path) {
            Ok(tokenizer) => tokenizer,
            Err(source) => return Err(Error::File { action: "read", path, source }),
        };
        lfs::refuse(&tokenizer, &path)?;
        let config: TokenizerConfig = read_json(&folder.join(TOKENIZER_CONFIG))?.unwrap_or_default();
        // The file of its own wins, as in Transformers.
        let chat_template = match read(&folder.join(CHAT_TEMPLATE))? {
            Some(template) => Some(String::from_utf8_lossy(&template).into_owned()),
            None => config.chat_template.and_then(|templates| match templates {
                Templates::One(template) => Some(template),
                Templates::Several(named) => {
                    named.into_iter().find(|one| one.name == "default").map(|one| one.template)
                }
            }),
        };
        let mut stop_token_ids = Vec::new();
        for name in [GENERATION_CONFIG, MODEL_CONFIG] {
            let end: EndTokens = read_json(&folder.join(name))?.unwrap_or_default();
            match end.eos_token_id {
                Some(OneOrSeveral::One(id)) => stop_token_ids.push(id),
                Some(OneOrSeveral::Several(ids)) => stop_token_ids.extend(ids),
                None => {}
            }
        }
        Ok(Self { tokenizer, chat_template, special_tokens: special_tokens(config.other), stop_token_ids })
    }
}

fn special_tokens(config: Map<String, Value>) -> BTreeMap<String, String> {
    let named = config.into_iter().filter(|(name, _)| name.ends_with("_token"));
    named
        .filter_map(|(name, value)| match serde_json::from_value(value).ok()? {
            Token::Plain(content) | Token::Detailed { content } => Some((name, content)),
        })
        .collect()
}

/// The bytes of a file, none where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { action: "read", path: path.to_owned(), source }),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    lfs::refuse(&bytes, path)?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| Error::Json { path: path.to_owned(), source })
}
