//! From a history and candidates to what the policy reads.
//!
//! A prompt is made of the history and the candidates alone: titles, captions and ids. Reasoning is something to imitate
//! in a completion and cannot enter here, and neither can the target.

use std::fs;
use std::path::{Path, PathBuf};

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::completion::{self, Layout};
use crate::dataset::Catalogue;
use crate::ids::ItemId;

/// How prompts are written: `[prompt]` of the run file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `words` (sentences, for a pretrained policy), `compact` (a few tokens an item, for the embedded policy), or the
    /// path of a minijinja file, relative to the run file. A template sees `history` and `candidates` (lists of
    /// `token`, `id`, `title`, `caption`), `list_length` and `answer_line`.
    pub template: String,
    /// Content of a system message before the user's. Absent: no such message.
    pub system: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { template: "words".to_owned(), system: None }
    }
}

/// Why a prompt cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The template's file cannot be read.
    #[error("cannot read the prompt template {} (the built-in ones are `words` and `compact`)", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The template is no minijinja template.
    #[error("prompt template `{template}` does not parse")]
    Parse {
        /// Its name in the run file.
        template: String,
        /// Where and why.
        source: minijinja::Error,
    },
    /// The template uses something that is not there, for instance.
    #[error("prompt template `{template}` does not render")]
    Render {
        /// Its name in the run file.
        template: String,
        /// Where and why.
        source: minijinja::Error,
    },
    /// An item that is not in the catalogue.
    #[error("{0} is not in the catalogue")]
    UnknownItem(ItemId),
}

/// Contents of the messages that a policy reads; the chat template goes around them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// The system message, if there is one.
    pub system: Option<String>,
    /// The user's message.
    pub user: String,
}

/// Writes prompts by one template.
#[derive(Debug)]
pub struct Prompts {
    environment: Environment<'static>,
    template: String,
    system: Option<String>,
    list_length: usize,
    answer_line: &'static str,
}

/// What a template sees of an item.
#[derive(Serialize)]
struct Shown<'a> {
    token: String,
    id: u64,
    title: &'a str,
    caption: Option<&'a str>,
}

/// What a template sees.
#[derive(Serialize)]
struct Context<'a> {
    history: Vec<Shown<'a>>,
    candidates: Vec<Shown<'a>>,
    list_length: usize,
    answer_line: &'a str,
}

impl Prompts {
    /// Reads the template; its path is relative to `base`. `answer` is what completions are asked to look like.
    pub fn new(options: &Options, answer: &completion::Options, base: &Path) -> Result<Self, Error> {
        let source = match options.template.as_str() {
            "words" => include_str!("../templates/words.jinja").to_owned(),
            "compact" => include_str!("../templates/compact.jinja").to_owned(),
            file => {
                let path = base.join(file);
                fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?
            }
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
            template,
            system: options.system.clone(),
            list_length: answer.list_length,
            answer_line: match answer.layout {
                Layout::Ids => "[ITEM_<id>]",
                Layout::Titled => "[ITEM_<id>] <title>",
            },
        })
    }

    /// The prompt that asks to rank `candidates` for someone with `history`, oldest first.
    pub fn write(
        &self,
        catalogue: &Catalogue,
        history: &[ItemId],
        candidates: &[ItemId],
    ) -> Result<Prompt, Error> {
        let context = Context {
            history: shown(catalogue, history)?,
            candidates: shown(catalogue, candidates)?,
            list_length: self.list_length,
            answer_line: self.answer_line,
        };
        let user = self
            .environment
            .get_template(&self.template)
            .and_then(|template| template.render(context))
            .map_err(|source| Error::Render { template: self.template.clone(), source })?;
        Ok(Prompt { system: self.system.clone(), user })
    }
}

fn shown<'a>(catalogue: &'a Catalogue, items: &[ItemId]) -> Result<Vec<Shown<'a>>, Error> {
    items
        .iter()
        .map(|&id| {
            let item = catalogue.get(id).ok_or(Error::UnknownItem(id))?;
            Ok(Shown {
                token: id.to_string(),
                id: id.0,
                title: &item.title,
                caption: item.caption.as_deref(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;

    fn catalogue() -> Catalogue {
        let item = |id, title: &str, caption: Option<&str>| Item {
            id: ItemId(id),
            title: title.to_owned(),
            caption: caption.map(str::to_owned),
            interactions: 0,
        };
        Catalogue::new([
            item(1, "Dunes & <Storms>", Some("crimson desert")),
            item(2, "The \"Quoted\"", None),
            item(3, "Reef", Some("teal ocean")),
        ])
    }

    fn write(template: &str, base: &Path) -> Result<String, Error> {
        let options = Options { template: template.to_owned(), system: None };
        let prompts = Prompts::new(&options, &completion::Options::default(), base)?;
        prompts
            .write(&catalogue(), &[ItemId(1), ItemId(2)], &[ItemId(3), ItemId(2)])
            .map(|prompt| prompt.user)
    }

    #[test]
    fn the_compact_template_is_one_line() {
        let prompt = write("compact", Path::new("")).unwrap();
        assert_eq!(prompt, "history [ITEM_1] crimson desert [ITEM_2] candidates [ITEM_3] [ITEM_2]");
    }

    #[test]
    fn the_template_in_words_lists_and_instructs() {
        let prompt = write("words", Path::new("")).unwrap();
        let lines: Vec<&str> = prompt.lines().collect();
        assert_eq!(
            lines[..8],
            [
                "A user interacted with these items, oldest first:",
                "1. [ITEM_1] Dunes & <Storms> — crimson desert",
                "2. [ITEM_2] The \"Quoted\"",
                "",
                "One of these candidates comes next:",
                "[ITEM_3] Reef — teal ocean",
                "[ITEM_2] The \"Quoted\"",
                "",
            ]
        );
        assert!(lines[8].contains("list the 3 candidates"), "{prompt}");
        assert_eq!(lines[9], "[ITEM_<id>] <title>");
        assert_eq!(lines.len(), 10);
    }

    #[test]
    fn a_template_of_ones_own_is_read_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine.jinja"), "{{ candidates | length }} of {{ history[0].title }}")
            .unwrap();
        assert_eq!(write("mine.jinja", dir.path()).unwrap(), "2 of Dunes & <Storms>");

        assert!(matches!(write("absent.jinja", dir.path()), Err(Error::Read { .. })));
        fs::write(dir.path().join("open.jinja"), "{% for x in").unwrap();
        assert!(matches!(write("open.jinja", dir.path()), Err(Error::Parse { .. })));
        fs::write(dir.path().join("leak.jinja"), "{{ target }}").unwrap();
        assert!(matches!(write("leak.jinja", dir.path()), Err(Error::Render { .. })));
    }

    #[test]
    fn an_unknown_item_is_an_error() {
        let prompts =
            Prompts::new(&Options::default(), &completion::Options::default(), Path::new("")).unwrap();
        assert!(matches!(prompts.write(&catalogue(), &[ItemId(9)], &[]), Err(Error::UnknownItem(ItemId(9)))));
    }
}
