//! Options of prompts, and the built-in templates.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Construction of prompts: `[prompt]` of the run file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `words` (sentences, for a pretrained policy), `compact` (ids, and captions of the history, for the embedded
    /// policy), `ids` (ids only, for policies with one token per item), or the path of a minijinja file, relative to
    /// the run file. Variables of a template are `history` and `candidates` (lists of `token`, `id`, `title`,
    /// `caption`), `list_length` and `answer_line`.
    pub template: String,
    /// Content of a system message before the user message. Without it there is no system message.
    pub system: Option<String>,
    /// Maximum length of a prompt in tokens of the policy's tokenizer, including the chat template. In longer prompts
    /// captions are shortened, then the oldest history is dropped, then titles are truncated to no less than 16
    /// characters; candidates and the instruction are preserved. Without it: no limit.
    pub max_tokens: Option<usize>,
    /// Maximum length of the messages in characters, with the same shortening.
    pub max_chars: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { template: "words".to_owned(), system: None, max_tokens: None, max_chars: None }
    }
}

impl Options {
    /// Returns the file of the template, relative to the run file, unless it is built in.
    pub fn template_file(&self) -> Option<&Path> {
        built_in(&self.template).is_none().then(|| Path::new(&self.template))
    }
}

/// Returns the built-in template of this name.
pub(super) fn built_in(name: &str) -> Option<&'static str> {
    match name {
        "words" => Some(include_str!("../../templates/words.jinja")),
        "compact" => Some(include_str!("../../templates/compact.jinja")),
        "ids" => Some(include_str!("../../templates/ids.jinja")),
        _ => None,
    }
}
