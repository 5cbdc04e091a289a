//! The data set that a command works on: a run file's, or a folder's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use podium_config::{Override, RunFile};
use podium_recsys::dataset::{Split, TrainingTargets};
use podium_recsys::{Dataset, Task, completion, dataset, task};

use crate::prompts;

/// Why there is nothing to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The run file cannot be used.
    #[error(transparent)]
    RunFile(#[from] podium_config::Error),
    /// Neither flag nor key says where the data is.
    #[error("there is no data set: expected --data DIR, or a run file with data.dir")]
    NoData,
    /// The data set cannot be read.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// The policy's tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    /// The run file's task cannot be set up.
    #[error(transparent)]
    Task(#[from] task::Error),
}

/// Which data set, and how its prompts are written.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// The run file whose data, prompts and answers count; the defaults otherwise.
    #[arg(long, value_name = "FILE")]
    run_file: Option<PathBuf>,
    /// Folder of the data set; the run file's data.dir otherwise.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Sets a key of the run file; can be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<Override>,
}

/// A data set and where it lies.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Its content.
    pub(crate) dataset: Dataset,
    file: RunFile,
    base: PathBuf,
}

impl Arguments {
    /// Reads the data set, and says what was left out.
    pub(crate) fn load(&self) -> Result<Source, Error> {
        let mut file = match &self.run_file {
            Some(path) => RunFile::load(path, &self.overrides)?,
            None => RunFile::parse("", "the defaults", &self.overrides)?,
        };
        if self.data.is_some() {
            file.data.dir.clone_from(&self.data);
        }
        // Reasoning is about a user's last target.
        file.data.training_targets = TrainingTargets::Last;
        let folder = file.data.dir.clone().ok_or(Error::NoData)?;
        let dataset = Dataset::load(&folder, &file.data)?;
        for (rows, skipped) in &dataset.report.skipped {
            let places: Vec<String> = skipped.first.iter().map(ToString::to_string).collect();
            tracing::warn!("{rows}: {} rows skipped, the first at {}", skipped.count, places.join(", "));
        }
        let base = self.run_file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        Ok(Source { folder, dataset, file, base })
    }
}

impl Source {
    /// The file of the data set with this ending: `<folder>/<name>_<ending>`.
    pub(crate) fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}_{ending}", self.dataset.name))
    }

    /// The ranking task of the run file over `dataset`.
    pub(crate) fn task(&self, dataset: Dataset) -> Result<Task, Error> {
        let task = Task::new(dataset, &self.file.task(), self.file.run.seed, &self.base)?;
        // Prompts are cut to `prompt.max_tokens` as the policy counts them.
        Ok(match (&self.file.model.path, self.file.prompt.max_tokens) {
            (Some(folder), Some(_)) => {
                let chat = prompts::chat(folder, &self.file)?;
                task.measured_with(Arc::new(move |prompt| Ok(chat.length(prompt.messages())?)))
            }
            _ => task,
        })
    }

    /// The same with what the policy's chat template opens or closes of the think block, where the policy is at hand.
    pub(crate) fn rendered_task(&self, dataset: Dataset) -> Result<Task, Error> {
        let task = self.task(dataset)?;
        Ok(match &self.file.model.path {
            Some(folder) if folder.join("tokenizer.json").exists() => {
                prompts::rendered(task, &prompts::chat(folder, &self.file)?)
            }
            _ => task,
        })
    }

    /// What the run file's completions look like.
    pub(crate) const fn answer(&self) -> &completion::Options {
        &self.file.answer
    }

    /// How the data set's files keep training and held-out data apart.
    pub(crate) const fn split(&self) -> Split {
        self.file.data.split
    }

    /// The seed of the run file.
    pub(crate) const fn seed(&self) -> u64 {
        self.file.run.seed
    }
}
