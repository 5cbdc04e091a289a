//! `podium-curator prompts`: measures the lengths of a run's prompts and their shortening.
//!
//! The prompts use the template, candidates and budget of the run. They are measured in tokens with the chat template
//! if a tokenizer is available, and otherwise in characters.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use podium_config::{Override, RunFile};
use podium_recsys::completion::ThinkingStart;
use podium_recsys::dataset::{self, Dataset, HeldOut};
use podium_recsys::prompt::{self, Unit};
use podium_recsys::synthetic;
use podium_recsys::task::{self, Case, Task};
use podium_service::progress::Progress;
use podium_tokenizer::{Chat, Variables};

use crate::spread::Spread;

/// Number of prompts over the budget that are listed.
const NAMED: usize = 5;

/// Arguments of the command.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The run file.
    #[arg(value_name = "RUN.toml")]
    run_file: PathBuf,
    /// Set a key of the run file: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<Override>,
    /// Folder of the tokenizer. Default: model.path of the run file; without either, lengths are in characters.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Number of users of each part.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    users: usize,
    /// Show the first prompts of each part, up to this many.
    #[arg(long, value_name = "N", default_value_t = 0)]
    show: usize,
}

/// An error of the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The run file cannot be used.
    #[error(transparent)]
    RunFile(#[from] podium_config::Error),
    /// The data set cannot be read.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// The embedded data set cannot be generated.
    #[error(transparent)]
    World(#[from] synthetic::Error),
    /// The tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    /// The task cannot be set up, or a prompt cannot be written.
    #[error(transparent)]
    Task(#[from] task::Error),
}

/// Lengths and shortenings of the prompts of each part.
#[derive(Debug)]
pub(crate) struct Report {
    unit: Unit,
    parts: Vec<Prompts>,
}

#[derive(Debug, Default)]
struct Prompts {
    part: String,
    lengths: Vec<usize>,
    captions_shortened: usize,
    captions_left_out: usize,
    history_shortened: usize,
    history_items_left_out: usize,
    titles_cut: usize,
    /// States of the think block at the end of the prompts.
    thinking: BTreeSet<&'static str>,
    too_long: Vec<String>,
    shown: Vec<String>,
}

/// Writes and measures the prompts of training's first epoch and of evaluation.
pub(crate) fn measure(arguments: &Arguments) -> Result<Report, Error> {
    let file = RunFile::load(&arguments.run_file, &arguments.overrides)?;
    let base = arguments.run_file.parent().unwrap_or(Path::new(""));
    let dataset = match &file.data.dir {
        Some(dir) => Dataset::load(dir, &file.data)?,
        None => synthetic::generate(&file.world)?,
    };
    let mut task = Task::new(dataset, &file.task(), file.run.seed, base)?;
    let folder = arguments.tokenizer.as_deref().or(file.model.path.as_deref());
    let chat = folder.map(|folder| chat(folder, &file)).transpose()?;
    if let Some(chat) = &chat {
        task = rendered(task, chat);
    }
    let count = |case: &Case| match &chat {
        Some(chat) => Ok(chat.length(case.prompt.messages())?),
        None => Ok(case.prompt.chars()),
    };
    let unit = if chat.is_some() { Unit::Tokens } else { Unit::Chars };
    let of = |name: String, cases: usize, case: &dyn Fn(usize) -> Result<Case, task::Error>| {
        Prompts::of(name, cases.min(arguments.users), arguments.show, count, case)
    };
    let mut parts =
        vec![of("training".to_owned(), task.training_cases(), &|index| task.training_case(index, 0))?];
    for part in [HeldOut::Validation, HeldOut::Test] {
        let users = task.dataset().held_out(part).len();
        parts.push(of(part.to_string(), users, &|index| task.held_out_case(part, index, 0))?);
    }
    // The validation part may be absent.
    parts.retain(|prompts| prompts.written() > 0);
    Ok(Report { unit, parts })
}

/// Loads the tokenizer and the chat template of the policy in `folder`.
pub(crate) fn chat(folder: &Path, file: &RunFile) -> Result<Arc<Chat>, podium_tokenizer::Error> {
    let variables = Variables::prompt(file.model.enable_thinking, &file.model.template_variables);
    Ok(Arc::new(Chat::load(folder, variables)?))
}

/// Returns the task with a policy's tokenizer and chat template, which count tokens and determine the state of the
/// think block.
pub(crate) fn rendered(task: Task, chat: &Arc<Chat>) -> Task {
    let (lengths, ends) = (chat.clone(), chat.clone());
    task.measured_with(Arc::new(move |prompt| Ok(lengths.length(prompt.messages())?)))
        .ended_with(Arc::new(move |prompt| Ok(ends.generation_prompt(prompt.messages())?)))
}

impl Prompts {
    fn of(
        part: String,
        users: usize,
        show: usize,
        count: impl Fn(&Case) -> Result<usize, Error>,
        case: &dyn Fn(usize) -> Result<Case, task::Error>,
    ) -> Result<Self, Error> {
        let mut prompts = Self { part, ..Self::default() };
        let mut progress = Progress::new("writing prompts", users as u64);
        for index in 0..users {
            match case(index) {
                Ok(case) => prompts.add(&case, count(&case)?, show),
                Err(task::Error::Prompt(error)) if error.kind() == prompt::Kind::TooLong => {
                    prompts.too_long.push(error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
            progress.show(index as u64 + 1, || prompts.part.clone());
        }
        progress.finish();
        Ok(prompts)
    }

    /// Returns the number of prompts, those over the budget included.
    fn written(&self) -> usize {
        self.lengths.len() + self.too_long.len()
    }

    fn add(&mut self, case: &Case, length: usize, show: usize) {
        let shortening = case.shortening;
        self.lengths.push(length);
        self.thinking.insert(case.thinking_start.name());
        match shortening.caption_chars {
            Some(0) => self.captions_left_out += 1,
            Some(_) => self.captions_shortened += 1,
            None => {}
        }
        self.history_shortened += usize::from(shortening.history_left_out > 0);
        self.history_items_left_out += shortening.history_left_out;
        self.titles_cut += usize::from(shortening.title_chars.is_some());
        if self.shown.len() < show {
            let messages: Vec<String> =
                case.prompt.messages().map(|(role, content)| format!("[{role}]\n{content}\n")).collect();
            self.shown.push(format!("── {}\n{}", case.user, messages.concat()));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for prompts in &self.parts {
            let written = prompts.lengths.len();
            writeln!(f, "{} prompts: {written}, in {}", prompts.part, self.unit)?;
            writeln!(f, "  lengths                   {}", Spread::of(prompts.lengths.clone()))?;
            writeln!(f, "  captions shortened        {}", prompts.captions_shortened)?;
            writeln!(f, "  captions omitted          {}", prompts.captions_left_out)?;
            writeln!(
                f,
                "  oldest history omitted    {} ({} items)",
                prompts.history_shortened, prompts.history_items_left_out
            )?;
            writeln!(f, "  titles truncated          {}", prompts.titles_cut)?;
            if prompts.thinking.iter().any(|name| *name != ThinkingStart::Absent.name()) {
                let names: Vec<&str> = prompts.thinking.iter().copied().collect();
                writeln!(f, "  think block in the prompt {}", names.join(", "))?;
            }
            writeln!(f, "  over the budget           {}", prompts.too_long.len())?;
            for error in prompts.too_long.iter().take(NAMED) {
                writeln!(f, "    {error}")?;
            }
            for prompt in &prompts.shown {
                writeln!(f, "{prompt}")?;
            }
        }
        Ok(())
    }
}
