//! Builds prompts from a history and candidates, within a budget.
//!
//! A prompt contains only titles, captions and ids of history and candidates. Reasoning and target are not inputs of
//! this module, so that they cannot leak into a prompt.

mod fit;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fit::{Shortening, Unit};

use fit::{Attempt, Excess, Longest};

use crate::completion::{self, Layout, ThinkingStart};
use crate::dataset::Catalogue;
use crate::ids::{ItemId, UserId};

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
fn built_in(name: &str) -> Option<&'static str> {
    match name {
        "words" => Some(include_str!("../../templates/words.jinja")),
        "compact" => Some(include_str!("../../templates/compact.jinja")),
        "ids" => Some(include_str!("../../templates/ids.jinja")),
        _ => None,
    }
}

/// An error while writing a prompt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The template's file cannot be read.
    #[error("cannot read the prompt template {} (the built-in ones are `words`, `compact` and `ids`)", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The template is not a valid minijinja template.
    #[error("prompt template `{template}` does not parse")]
    Parse {
        /// Its name in the run file.
        template: String,
        /// Position and cause.
        source: minijinja::Error,
    },
    /// Rendering failed, for example because of an undefined variable.
    #[error("prompt template `{template}` does not render")]
    Render {
        /// Its name in the run file.
        template: String,
        /// Position and cause.
        source: minijinja::Error,
    },
    /// An item that is not in the catalogue.
    #[error("{0} is not in the catalogue")]
    UnknownItem(ItemId),
    /// A prompt exceeds the budget after all shortening.
    #[error(
        "the prompt of {user} has {whole} {unit}, and {least} without captions, with one item of history and with titles \
         of at most {} characters: expected at most {limit} (prompt.max_{}); raise the limit, or show fewer candidates \
         (candidates.count)",
        fit::SHORTEST_TITLE_CHARS,
        match unit { Unit::Tokens => "tokens", Unit::Chars => "chars" }
    )]
    TooLong {
        /// The user of the prompt.
        user: UserId,
        /// Its full size.
        whole: usize,
        /// Its minimum size.
        least: usize,
        /// The budget.
        limit: usize,
        /// Unit of the sizes.
        unit: Unit,
    },
    /// `prompt.max_tokens` is set without a tokenizer.
    #[error(
        "prompt.max_tokens requires the policy's tokenizer, which is not available here: use prompt.max_chars instead"
    )]
    NoMeasure,
    /// The tokens of a prompt cannot be counted.
    #[error("cannot count the tokens of the prompt of {user}")]
    Measure {
        /// The user of the prompt.
        user: UserId,
        /// Cause.
        source: Refusal,
    },
    /// The chat template rejects a prompt.
    #[error("cannot render the prompt of {user} with the chat template")]
    End {
        /// The user of the prompt.
        user: UserId,
        /// Cause.
        source: Refusal,
    },
}

/// Error of a tokenizer or chat template for a prompt.
pub type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// Returns the number of tokens of a prompt, including the chat template.
pub type Measure = dyn Fn(&Prompt) -> Result<usize, Refusal> + Send + Sync;

/// Returns the generation prompt: the text that the chat template writes after the messages.
pub type Ends = dyn Fn(&Prompt) -> Result<String, Refusal> + Send + Sync;

/// Messages of a prompt, before the chat template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// The system message, if there is one.
    pub system: Option<String>,
    /// The user message.
    pub user: String,
}

impl Prompt {
    /// Returns the messages in order, as pairs of role and content.
    pub fn messages(&self) -> impl Iterator<Item = (&str, &str)> {
        let system = self.system.iter().map(|text| ("system", text.as_str()));
        system.chain(std::iter::once(("user", self.user.as_str())))
    }

    /// Returns the number of characters of all messages.
    pub fn chars(&self) -> usize {
        self.messages().map(|(_, content)| content.chars().count()).sum()
    }
}

/// Writes prompts with one template.
pub struct Prompts {
    environment: Environment<'static>,
    options: Options,
    list_length: usize,
    answer_line: &'static str,
    measure: Option<Arc<Measure>>,
    ends: Option<Arc<Ends>>,
}

impl fmt::Debug for Prompts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompts").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Template variables of an item.
#[derive(Serialize)]
struct Shown<'a> {
    token: String,
    id: u64,
    title: &'a str,
    caption: Option<&'a str>,
}

/// Template variables.
#[derive(Serialize)]
struct Context<'a> {
    history: Vec<Shown<'a>>,
    candidates: Vec<Shown<'a>>,
    list_length: usize,
    answer_line: &'a str,
}

impl Prompts {
    /// Loads the template; its path is relative to `base`. `answer` is the required format of completions.
    pub fn new(options: &Options, answer: &completion::Options, base: &Path) -> Result<Self, Error> {
        let source = if let Some(template) = built_in(&options.template) {
            template.to_owned()
        } else {
            let path = base.join(&options.template);
            fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?
        };
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let template = options.template.clone();
        environment
            .add_template_owned(template.clone(), source)
            .map_err(|source| Error::Parse { template: template.clone(), source })?;
        Ok(Self {
            environment,
            options: options.clone(),
            list_length: answer.list_length,
            answer_line: match answer.layout {
                Layout::Ids => "[ITEM_<id>]",
                Layout::Titled => "[ITEM_<id>] <title>",
            },
            measure: None,
            ends: None,
        })
    }

    /// Sets the token counter for `prompt.max_tokens`.
    pub fn measure_with(&mut self, measure: Arc<Measure>) {
        self.measure = Some(measure);
    }

    /// Sets the source of the generation prompt, which determines the state of the think block.
    pub fn end_with(&mut self, ends: Arc<Ends>) {
        self.ends = Some(ends);
    }

    /// Returns the state of the think block at the end of the prompt of `user`; absent without a chat template.
    pub fn thinking_start(&self, user: UserId, prompt: &Prompt) -> Result<ThinkingStart, Error> {
        match &self.ends {
            Some(ends) => {
                let end = ends(prompt).map_err(|source| Error::End { user, source })?;
                Ok(ThinkingStart::of(&end))
            }
            None => Ok(ThinkingStart::Absent),
        }
    }

    /// Writes the prompt to rank `candidates` for `user` with `history`, oldest first, and returns it with its
    /// shortening.
    pub fn write(
        &self,
        catalogue: &Catalogue,
        user: UserId,
        history: &[ItemId],
        candidates: &[ItemId],
    ) -> Result<(Prompt, Shortening), Error> {
        let items = || history.iter().chain(candidates).filter_map(|&id| catalogue.get(id));
        let most = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        let longest = Longest {
            caption: most(&mut items().filter_map(|item| Some(item.caption.as_deref()?.chars().count()))),
            title: most(&mut items().map(|item| item.title.chars().count())),
        };
        fit::fit(user, longest, history.len(), |shortening| {
            let history = &history[shortening.history_left_out..];
            let prompt = self.render(catalogue, history, candidates, shortening)?;
            self.within_budget(user, prompt)
        })
    }

    fn within_budget(&self, user: UserId, prompt: Prompt) -> Result<Attempt, Error> {
        if let Some(limit) = self.options.max_chars {
            let size = prompt.chars();
            if size > limit {
                return Ok(Err(Excess { size, limit, unit: Unit::Chars }));
            }
        }
        if let Some(limit) = self.options.max_tokens {
            let measure = self.measure.as_ref().ok_or(Error::NoMeasure)?;
            let size = measure(&prompt).map_err(|source| Error::Measure { user, source })?;
            if size > limit {
                return Ok(Err(Excess { size, limit, unit: Unit::Tokens }));
            }
        }
        Ok(Ok(prompt))
    }

    fn render(
        &self,
        catalogue: &Catalogue,
        history: &[ItemId],
        candidates: &[ItemId],
        shortening: Shortening,
    ) -> Result<Prompt, Error> {
        let context = Context {
            history: shown(catalogue, history, shortening)?,
            candidates: shown(catalogue, candidates, shortening)?,
            list_length: self.list_length,
            answer_line: self.answer_line,
        };
        let template = &self.options.template;
        let user = self
            .environment
            .get_template(template)
            .and_then(|template| template.render(context))
            .map_err(|source| Error::Render { template: template.clone(), source })?;
        Ok(Prompt { system: self.options.system.clone(), user })
    }
}

fn shown<'a>(
    catalogue: &'a Catalogue,
    items: &[ItemId],
    shortening: Shortening,
) -> Result<Vec<Shown<'a>>, Error> {
    let Shortening { caption_chars, title_chars, .. } = shortening;
    items
        .iter()
        .map(|&id| {
            let item = catalogue.get(id).ok_or(Error::UnknownItem(id))?;
            let caption = item.caption.as_deref();
            Ok(Shown {
                token: id.to_string(),
                id: id.0,
                // Truncation never empties a title.
                title: fit::cut(&item.title, title_chars.unwrap_or(usize::MAX)).unwrap_or(&item.title),
                caption: caption.and_then(|caption| fit::cut(caption, caption_chars.unwrap_or(usize::MAX))),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
