//! The errors of reading and writing tokenizers.

use std::path::PathBuf;

/// An error while reading a tokenizer, rendering a template or converting text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// The failed operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A file of a written tokenizer cannot be created.
    #[error(transparent)]
    Write(#[from] podium_files::durable::Error),
    /// A file is a pointer to a file that was not downloaded.
    #[error(transparent)]
    Pointer(#[from] podium_checkpoint::lfs::Pointer),
    /// A file is not the expected JSON.
    #[error("{path} is not valid JSON of its kind")]
    Json {
        /// The file.
        path: PathBuf,
        /// Error of the JSON parser.
        source: serde_json::Error,
    },
    /// `tokenizer.json` is not a tokenizer.
    #[error("{path} is not a tokenizer")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Error of the tokenizers library.
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
    /// A text file is not UTF-8.
    #[error("{path} is not UTF-8 at byte {byte}")]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Position of the first invalid byte.
        byte: usize,
    },
    /// A key of a file has a value that cannot be used.
    #[error("{path} has {key} = {value}: expected {expected}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with a dot before each key within another.
        key: Box<str>,
        /// Its value as JSON, truncated.
        value: Box<str>,
        /// The permitted values.
        expected: &'static str,
    },
    /// A token is declared with another id than the tokenizer assigns.
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
        /// The assigned id.
        found: Option<u32>,
    },
    /// The folder has no end-of-sequence token.
    #[error(
        "{path} names no token that ends a completion: expected eos_token in tokenizer_config.json or \
         special_tokens_map.json, or eos_token_id in generation_config.json or config.json"
    )]
    NoStopToken {
        /// The folder.
        path: PathBuf,
    },
    /// The chat template is malformed or uses an unsupported feature.
    #[error("cannot read the chat template in {path}")]
    Template {
        /// The file.
        path: PathBuf,
        /// Position and cause.
        source: podium_jinja::Error,
    },
    /// The chat template fails on the messages or rejects them.
    #[error("the chat template in {path} cannot render these messages")]
    Render {
        /// The file.
        path: PathBuf,
        /// Position and cause.
        source: podium_jinja::Error,
    },
    /// There are no messages; Transformers does not render empty conversations either.
    #[error("no messages to render: expected at least one")]
    NoMessages,
    /// The tokenizer cannot encode a text.
    #[error("the tokenizer cannot encode a text of {bytes} bytes")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// Error of the tokenizers library.
        source: tokenizers::Error,
    },
    /// The tokenizer cannot decode tokens.
    #[error("the tokenizer cannot decode {tokens} tokens")]
    Decode {
        /// Number of tokens.
        tokens: usize,
        /// Error of the tokenizers library.
        source: tokenizers::Error,
    },
    /// The decoder does not define the text of a single token.
    #[error(
        "{path} decodes with {decoder}, in which a token's text depends on its neighbours: expected a byte-level or word-level tokenizer"
    )]
    Dependent {
        /// The folder.
        path: PathBuf,
        /// The kind of decoder.
        decoder: &'static str,
    },
    /// A library panicked on the folder's files.
    #[error("{library} failed on the files of {path}: {message}")]
    Library {
        /// The folder.
        path: PathBuf,
        /// The library.
        library: &'static str,
        /// The panic message.
        message: String,
    },
}
