//! The errors of reading and writing tokenizers.

use std::path::PathBuf;

/// Why text cannot be turned into tokens or back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of a written tokenizer cannot be created.
    #[error(transparent)]
    Write(#[from] podium_files::durable::Error),
    /// A file stands for another one that was not downloaded.
    #[error(transparent)]
    Pointer(#[from] podium_checkpoint::lfs::Pointer),
    /// A file is not the expected JSON.
    #[error("{path} is not valid JSON of its kind")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser stumbled over.
        source: serde_json::Error,
    },
    /// `tokenizer.json` is not a tokenizer.
    #[error("{path} is not a tokenizer")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizer's library said.
        source: tokenizers::Error,
    },
    /// The folder has no chat template.
    #[error(
        "{path} has no chat template, expected chat_template.jinja or chat_template in tokenizer_config.json"
    )]
    NoTemplate {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has several chat templates, and none of them is the default.
    #[error("{path} has the chat templates {names}: expected one named \"default\"", names = names.join(", "))]
    NoDefaultTemplate {
        /// The file or folder that has them.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// A file that is text is not UTF-8.
    #[error("{path} is not UTF-8 at byte {byte}")]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Where the first invalid byte is.
        byte: usize,
    },
    /// A key of a file has a value that cannot be used.
    #[error("{path} has {key} = {value}: expected {expected}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with a dot before each key within another.
        key: Box<str>,
        /// Its value as JSON, cut where it is long.
        value: Box<str>,
        /// What it may be.
        expected: &'static str,
    },
    /// A token is declared with an id that the tokenizer does not give it.
    #[error(
        "{path} declares {token:?} with the id {declared} ({key}): the tokenizer gives it {}",
        found.map_or("none".to_owned(), |id| id.to_string())
    )]
    TokenId {
        /// The file.
        path: PathBuf,
        /// The key.
        key: Box<str>,
        /// The token.
        token: Box<str>,
        /// The declared id.
        declared: u32,
        /// The id it would have.
        found: Option<u32>,
    },
    /// Nothing ends a completion.
    #[error(
        "{path} names no token that ends a completion: expected eos_token in tokenizer_config.json or \
         special_tokens_map.json, or eos_token_id in generation_config.json or config.json"
    )]
    NoStopToken {
        /// The folder.
        path: PathBuf,
    },
    /// The chat template cannot be read: it is malformed, or uses something that is not supported.
    #[error("cannot read the chat template in {path}")]
    Template {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: podium_jinja::Error,
    },
    /// The chat template cannot render messages, or refuses them.
    #[error("the chat template in {path} cannot render these messages")]
    Render {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: podium_jinja::Error,
    },
    /// There are no messages, which Transformers renders with no template.
    #[error("no messages to render: expected at least one")]
    NoMessages,
    /// The tokenizer cannot encode a text.
    #[error("the tokenizer cannot encode a text of {bytes} bytes")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// What the tokenizer's library said.
        source: tokenizers::Error,
    },
    /// The tokenizer cannot decode tokens.
    #[error("the tokenizer cannot decode {tokens} tokens")]
    Decode {
        /// Number of tokens.
        tokens: usize,
        /// What the tokenizer's library said.
        source: tokenizers::Error,
    },
    /// What a token adds to a text cannot be told from the token alone.
    #[error(
        "{path} decodes with {decoder}, where a token's text depends on its neighbours: expected a byte-level tokenizer, or one of words"
    )]
    Dependent {
        /// The folder.
        path: PathBuf,
        /// The kind of decoder.
        decoder: &'static str,
    },
    /// A library met something in the folder's files that it cannot go on with.
    #[error("the files of {path} make {library} fail: {message}")]
    Library {
        /// The folder.
        path: PathBuf,
        /// What failed.
        library: &'static str,
        /// Its last words.
        message: String,
    },
}
