//! Tokenizers and chat templates of Hugging Face model folders: the one path from messages to token ids and back that
//! fine-tuning, rollouts and evaluation share.
//!
//! No libtorch here: whoever needs to count tokens can afford this crate.

mod chat;
mod stop;

use std::path::{Path, PathBuf};

pub use chat::{Message, Variables};

/// A model folder's tokenizer with its chat template and stop tokens.
#[derive(Debug)]
pub struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    template: chat::Template,
    stop_token_ids: Vec<u32>,
}

/// A tokenizer that cannot be used, or a text that it cannot do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the folder is not the JSON it should be.
    #[error("{} is not what is expected there: {source}", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// `tokenizer.json` describes no tokenizer.
    #[error("{} describes no tokenizer: {source}", path.display())]
    Tokenizer {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: tokenizers::Error,
    },
    /// The folder has no chat template.
    #[error("{} has no chat template: expected chat_template.jinja or a chat_template in tokenizer_config.json", folder.display())]
    NoTemplate {
        /// Which folder.
        folder: PathBuf,
    },
    /// The chat template cannot be read, or does not take these messages.
    #[error("the chat template fails: {source:#}")]
    Template {
        /// Where in the template and why.
        source: Box<minijinja::Error>,
    },
    /// A token named in a configuration file is not in the vocabulary.
    #[error("{} names the token {token:?}, which the tokenizer does not have", path.display())]
    UnknownToken {
        /// Which file.
        path: PathBuf,
        /// The token.
        token: String,
    },
    /// A text could not be cut into tokens, or tokens could not be joined.
    #[error("the tokenizer fails: {source}")]
    Text {
        /// Why.
        source: tokenizers::Error,
    },
}

impl From<minijinja::Error> for Error {
    fn from(source: minijinja::Error) -> Self {
        Self::Template { source: Box::new(source) }
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json`, the chat template and the stop tokens of a model folder.
    ///
    /// A folder without a template loads; only [`Tokenizer::render`] then fails.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("tokenizer.json");
        let text = read(&path)?;
        let mut tokenizer: tokenizers::Tokenizer =
            text.parse().map_err(|source| Error::Tokenizer { path, source })?;
        // Files saved after training may carry the padding and truncation of their last use.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|source| Error::Text { source })?;
        let stop_token_ids = stop::read(folder, &tokenizer)?;
        Ok(Self { template: chat::Template::load(folder)?, stop_token_ids, tokenizer })
    }

    /// Token ids of a text. Special tokens written in the text are recognised, none are added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|source| Error::Text { source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of token ids, without special tokens if `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        self.tokenizer.decode(ids, skip_special).map_err(|source| Error::Text { source })
    }

    /// Messages as the text that the policy reads.
    pub fn render(&self, messages: &[Message], variables: &Variables) -> Result<String, Error> {
        self.template.render(messages, variables)
    }

    /// [`Tokenizer::render`] and [`Tokenizer::encode`].
    pub fn encode_chat(&self, messages: &[Message], variables: &Variables) -> Result<Vec<u32>, Error> {
        self.encode(&self.render(messages, variables)?)
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Tokens that end an answer, the end of a turn first: those of generation_config.json, then of config.json, then
    /// tokenizer_config.json's `eos_token`, each once.
    pub fn stop_token_ids(&self) -> &[u32] {
        &self.stop_token_ids
    }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// A JSON file that need not be there.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let parsed = serde_json::from_str(&read(path)?);
    parsed.map(Some).map_err(|source| Error::Json { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
