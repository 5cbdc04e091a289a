//! Tokenizers and chat templates of Hugging Face model folders.
//!
//! There is one way from messages to token ids, which training, rollouts and evaluation share. Nothing here depends on
//! the day or on libtorch.

mod chat;
mod declarations;
mod diagnosis;
mod ends;
mod files;
mod generation;
mod guard;
mod template;
mod templates;
mod texts;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use chat::Chat;
pub use files::{copy_files, tokenizer_files};
pub use template::{Message, Variables};

use files::Folder;
use guard::guarded;
use template::ChatTemplate;
use templates::Choice;

/// What reads `tokenizer.json`.
const VOCABULARY: &str = "the tokenizer";
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

/// The tokenizer and the chat template of a model folder.
#[derive(Debug)]
pub struct Tokenizer {
    folder: PathBuf,
    vocabulary: tokenizers::Tokenizer,
    template: Choice<ChatTemplate>,
    stop_token_ids: Vec<u32>,
    end_of_turn_id: Option<u32>,
    vocab_size: usize,
    /// The tokens that add nothing to a completion's text: stop tokens, and special padding tokens.
    silent_ids: BTreeSet<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, as far as they are there, `tokenizer_config.json`, `special_tokens_map.json`,
    /// `added_tokens.json`, `chat_template.jinja`, `additional_chat_templates/default.jinja`, `generation_config.json` and
    /// `config.json`.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let files = Folder::read(folder)?;
        let path = folder.join("tokenizer.json");
        let parse = || {
            let mut tokenizer = tokenizers::Tokenizer::from_bytes(&files.tokenizer)?;
            // Some folders carry the padding and truncation of their training: lengths are the run's business here.
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None)?;
            tokenizer.set_encode_special_tokens(files.split_special_tokens);
            Ok(tokenizer)
        };
        let parsed = guarded(folder, VOCABULARY, parse)?;
        let mut tokenizer = parsed.map_err(|source| {
            let source = diagnosis::explain(&files.tokenizer, source);
            Error::Tokenizer { path, source }
        })?;
        let special_tokens = files.declarations.variables();
        let named = |tokenizer: &tokenizers::Tokenizer, name: &str| {
            let token = special_tokens.iter().find(|(found, _)| found == name);
            token.and_then(|(_, token)| tokenizer.token_to_id(token))
        };
        let padding = |tokenizer: &tokenizers::Tokenizer| -> BTreeSet<u32> {
            named(tokenizer, "pad_token").into_iter().chain(files.padding_ids.iter().copied()).collect()
        };
        // Some folders declare a word of the vocabulary as their padding token: it remains text.
        let added = tokenizer.get_added_tokens_decoder();
        let is_word = |id: &u32| {
            tokenizer.id_to_token(*id).is_some() && !added.get(id).is_some_and(|token| token.special)
        };
        let words: BTreeSet<u32> = padding(&tokenizer).into_iter().filter(is_word).collect();
        guarded(folder, VOCABULARY, || files.declarations.add_to(&mut tokenizer))??;

        let mut stop_token_ids: BTreeSet<u32> = files.stop_token_ids.iter().copied().collect();
        let end = named(&tokenizer, "eos_token");
        stop_token_ids.extend(end);
        let end_of_turn_id = end.or(files.stop_token_ids.first().copied());
        let template = files.chat_template.try_map(|(path, source)| {
            let template = ChatTemplate::new(path.clone(), &source, &special_tokens);
            template.map_err(|source| Error::Template { path, source })
        })?;
        let largest = tokenizer.get_vocab(true).into_values().max();
        let known = padding(&tokenizer).into_iter().filter(|id| tokenizer.id_to_token(*id).is_some());
        let padding = known.filter(|id| !words.contains(id));
        let silent_ids = padding.chain(stop_token_ids.iter().copied()).collect();
        Ok(Self {
            folder: folder.to_owned(),
            vocabulary: tokenizer,
            template,
            stop_token_ids: stop_token_ids.into_iter().collect(),
            end_of_turn_id,
            vocab_size: largest.map_or(0, |id| id as usize + 1),
            silent_ids,
        })
    }

    /// Token ids of a text. Nothing is added to it; special tokens written out in it are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = guarded(&self.folder, VOCABULARY, || self.vocabulary.encode_fast(text, false))?;
        let encoding = encoding.map_err(|source| Error::Encode { bytes: text.len(), source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the text of token ids as Transformers decodes them, with or without special tokens. Ids that no token has
    /// are left out. The text of a completion is that of [`Self::decode_with_ends`].
    pub fn decode(&self, token_ids: &[u32], skip_special: bool) -> Result<String, Error> {
        let text = guarded(&self.folder, VOCABULARY, || self.vocabulary.decode(token_ids, skip_special))?;
        text.map_err(|source| Error::Decode { tokens: token_ids.len(), source })
    }

    /// Returns the text of a completion as the policy wrote it, and for each id the byte of the text at which its own text
    /// ends: ascending, the last is the length of the text.
    ///
    /// Special tokens are part of the text, think tags and items among them; only stop tokens, special padding tokens and
    /// ids that no token has add nothing to it and end where the token before them does. Of a character that several
    /// tokens spell, all bytes belong to the last of them.
    pub fn decode_with_ends(&self, token_ids: &[u32]) -> Result<(String, Vec<u32>), Error> {
        let speaks = |id: u32| !self.silent_ids.contains(&id) && self.vocabulary.id_to_token(id).is_some();
        let spoken: Vec<u32> = token_ids.iter().copied().filter(|&id| speaks(id)).collect();
        let text = self.decode(&spoken, false)?;
        let mut ends = ends::ends(&spoken, &text, |ids| self.decode(ids, false))?.into_iter();
        let mut end = 0;
        let mut reach = |&id: &u32| {
            if speaks(id) {
                end = ends.next().unwrap_or(end);
            }
            end
        };
        let ends = token_ids.iter().map(&mut reach).collect();
        Ok((text, ends))
    }

    /// The text of messages by the chat template.
    pub fn render(&self, messages: &[Message], variables: &Variables) -> Result<String, Error> {
        let template = self.template()?;
        if messages.is_empty() {
            return Err(Error::NoMessages);
        }
        let rendered = template.render(messages, variables);
        rendered.map_err(|source| Error::Render { path: template.path.clone(), source })
    }

    fn template(&self) -> Result<&ChatTemplate, Error> {
        match &self.template {
            Choice::Template(template) => Ok(template),
            Choice::None => Err(Error::NoTemplate { path: self.folder.clone() }),
            Choice::NoDefault(path, names) => {
                Err(Error::NoDefaultTemplate { path: path.clone(), names: names.clone() })
            }
        }
    }

    /// Checks that the folder has a chat template and a token that ends a completion: what sampling and training need
    /// before they start.
    pub fn check_for_training(&self) -> Result<(), Error> {
        self.template()?;
        self.check_stop_tokens()
    }

    /// Checks that a token ends a completion.
    pub fn check_stop_tokens(&self) -> Result<(), Error> {
        if self.stop_token_ids.is_empty() {
            return Err(Error::NoStopToken { path: self.folder.clone() });
        }
        Ok(())
    }

    /// Token ids of messages: [`Self::render`], then [`Self::encode`].
    pub fn encode_chat(&self, messages: &[Message], variables: &Variables) -> Result<Vec<u32>, Error> {
        self.encode(&self.render(messages, variables)?)
    }

    /// The tokens that end a completion, ascending: `eos_token_id` of `generation_config.json` and `config.json`, and the
    /// tokenizer's end token.
    pub fn stop_token_ids(&self) -> &[u32] {
        &self.stop_token_ids
    }

    /// The token that a completion is taught to end with: the tokenizer's end token, or else the first that
    /// `generation_config.json` or `config.json` names.
    pub fn end_of_turn_id(&self) -> Option<u32> {
        self.end_of_turn_id
    }

    /// The id of a token written as in the vocabulary, such as `<|im_end|>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.token_to_id(token)
    }

    /// One more than the largest token id: what the vocabulary of a policy has to have at least.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}
