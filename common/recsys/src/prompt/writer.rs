//! Writes prompts with a template, within their budget.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::error::{Error, Refusal};
use super::fit::{self, Attempt, Excess, Longest};
use super::messages::Prompt;
use super::options::{Options, built_in};
use super::shortening::{Shortening, Unit};
use crate::completion::{self, Layout, ThinkingStart};
use crate::dataset::Catalogue;
use crate::ids::{ItemId, UserId};

/// Returns the number of tokens of a prompt, including the chat template.
pub type Measure = dyn Fn(&Prompt) -> Result<usize, Refusal> + Send + Sync;

/// Returns the generation prompt: the text that the chat template writes after the messages.
pub type Ends = dyn Fn(&Prompt) -> Result<String, Refusal> + Send + Sync;

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
