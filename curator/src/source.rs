//! The data set of a command, from a run file or a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use podium_config::{Override, RunFile};
use podium_recsys::dataset::{Split, TrainingTargets};
use podium_recsys::{Dataset, Task, completion, dataset, task};

use crate::prompts;

/// An error while loading the data set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The run file cannot be used.
    #[error(transparent)]
    RunFile(#[from] podium_config::Error),
    /// Neither a flag nor a key names the data set.
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

/// Arguments that select the data set and its prompts.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Run file with the data, prompts and answers. Default: the default configuration.
    #[arg(long, value_name = "FILE")]
    run_file: Option<PathBuf>,
    /// Folder of the data set. Default: data.dir of the run file.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Set a key of the run file; can be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<Override>,
}

/// A data set and its location.
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
    /// Loads the data set and logs skipped rows.
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
            let locations: Vec<String> = skipped.first.iter().map(ToString::to_string).collect();
            tracing::warn!("{rows}: {} rows skipped, the first at {}", skipped.count, locations.join(", "));
        }
        let base = self.run_file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        Ok(Source { folder, dataset, file, base })
    }
}

impl Source {
    /// Returns the file of the data set with this suffix: `<folder>/<name>_<ending>`.
    pub(crate) fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}_{ending}", self.dataset.name))
    }

    /// Returns the ranking task of the run file over `dataset`.
    pub(crate) fn task(&self, dataset: Dataset) -> Result<Task, Error> {
        let task = Task::new(dataset, &self.file.task(), self.file.run.seed, &self.base)?;
        // Prompts are shortened to `prompt.max_tokens` of the policy's tokenizer.
        Ok(match (&self.file.model.path, self.file.prompt.max_tokens) {
            (Some(folder), Some(_)) => {
                let chat = prompts::chat(folder, &self.file)?;
                task.measured_with(Arc::new(move |prompt| Ok(chat.length(prompt.messages())?)))
            }
            _ => task,
        })
    }

    /// Returns the same task with the think block of the policy's chat template, if the policy is available.
    pub(crate) fn rendered_task(&self, dataset: Dataset) -> Result<Task, Error> {
        let task = self.task(dataset)?;
        Ok(match &self.file.model.path {
            Some(folder) if folder.join("tokenizer.json").exists() => {
                prompts::rendered(task, &prompts::chat(folder, &self.file)?)
            }
            _ => task,
        })
    }

    /// Returns the required format of completions.
    pub(crate) const fn answer(&self) -> &completion::Options {
        &self.file.answer
    }

    /// Returns the separation of training and held-out data.
    pub(crate) const fn split(&self) -> Split {
        self.file.data.split
    }

    /// The seed of the run file.
    pub(crate) const fn seed(&self) -> u64 {
        self.file.run.seed
    }
}
