//! Tokenizers and chat templates of Hugging Face model folders.
//!
//! Training, rollouts and evaluation convert messages to token ids with the same function. The result does not depend
//! on the date, and the crate does not depend on libtorch.

mod chat;
mod configuration;
mod declarations;
mod diagnosis;
mod ends;
mod error;
mod files;
mod folder;
mod generation;
mod guard;
mod template;
mod templates;
mod texts;
pub mod word_level;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use chat::Chat;
pub use error::Error;
pub use files::{copy_files, tokenizer_files};
pub use template::{Message, Variables};

use folder::Folder;
use guard::guarded;
use template::ChatTemplate;
use templates::Choice;

/// Name in errors of the library that reads `tokenizer.json`.
const VOCABULARY: &str = "the tokenizer";

/// The tokenizer and the chat template of a model folder.
#[derive(Debug)]
pub struct Tokenizer {
    folder: PathBuf,
    vocabulary: tokenizers::Tokenizer,
    template: Choice<ChatTemplate>,
    stop_token_ids: Vec<u32>,
    end_of_turn_id: Option<u32>,
    vocab_size: usize,
    /// Tokens that add nothing to a completion's text: stop tokens and special padding tokens.
    silent_ids: BTreeSet<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, if they exist, `tokenizer_config.json`, `special_tokens_map.json`,
    /// `added_tokens.json`, `chat_template.jinja`, `additional_chat_templates/default.jinja`, `generation_config.json` and
    /// `config.json`.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let files = Folder::read(folder)?;
        let path = folder.join("tokenizer.json");
        let parse = || {
            let mut tokenizer = tokenizers::Tokenizer::from_bytes(&files.tokenizer)?;
            // Some folders contain padding and truncation settings of their training; the run defines lengths instead.
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
        // Some folders declare a word of the vocabulary as the padding token; it remains text.
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

    /// Returns the token ids of a text. No special tokens are added; special tokens written out in the text are
    /// recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = guarded(&self.folder, VOCABULARY, || self.vocabulary.encode_fast(text, false))?;
        let encoding = encoding.map_err(|source| Error::Encode { bytes: text.len(), source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the text of token ids as Transformers decodes them, with or without special tokens. Unknown ids are
    /// skipped. For the text of a completion use [`Self::decode_with_ends`].
    pub fn decode(&self, token_ids: &[u32], skip_special: bool) -> Result<String, Error> {
        let text = guarded(&self.folder, VOCABULARY, || self.vocabulary.decode(token_ids, skip_special))?;
        text.map_err(|source| Error::Decode { tokens: token_ids.len(), source })
    }

    /// Returns the text of a completion as the policy wrote it, and for each id the byte of the text at which its
    /// own text ends. The ends are ascending; the last is the length of the text.
    ///
    /// Special tokens are part of the text, including think tags and items. Stop tokens, special padding tokens and
    /// unknown ids add nothing and end where the previous token does. If several tokens spell a character, all its
    /// bytes belong to the last of them.
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

    /// Renders messages with the chat template.
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

    /// Checks that the folder has a chat template and a stop token, which sampling and training require.
    pub fn check_for_training(&self) -> Result<(), Error> {
        self.template()?;
        self.check_stop_tokens()
    }

    /// Checks that the tokenizer has a stop token.
    pub fn check_stop_tokens(&self) -> Result<(), Error> {
        if self.stop_token_ids.is_empty() {
            return Err(Error::NoStopToken { path: self.folder.clone() });
        }
        Ok(())
    }

    /// Returns the token ids of messages: [`Self::render`], then [`Self::encode`].
    pub fn encode_chat(&self, messages: &[Message], variables: &Variables) -> Result<Vec<u32>, Error> {
        self.encode(&self.render(messages, variables)?)
    }

    /// Returns the stop tokens, ascending: `eos_token_id` of `generation_config.json` and `config.json`, and the
    /// tokenizer's end token.
    pub fn stop_token_ids(&self) -> &[u32] {
        &self.stop_token_ids
    }

    /// Returns the token that training appends to a completion: the tokenizer's end token, or else the first one in
    /// `generation_config.json` or `config.json`.
    pub fn end_of_turn_id(&self) -> Option<u32> {
        self.end_of_turn_id
    }

    /// Returns the id of a token, written as in the vocabulary, such as `<|im_end|>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.token_to_id(token)
    }

    /// Returns the largest token id plus one: the minimum size of a policy's vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}
