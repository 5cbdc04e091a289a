//! Demonstrations as token ids, in order and epoch after epoch: generated from a data set, or read from a training
//! file.

use std::path::Path;
use std::sync::Arc;

use podium_config::RunFile;
use podium_recsys::dataset::{self, Dataset};
use podium_recsys::demonstration::{self, demonstrate};
use podium_recsys::synthetic;
use podium_recsys::task::{self, Task};

use super::encoder::{self, Encoder, Sample};
use super::file_samples::{self, FileSamples};

/// The reasons why there are no demonstrations.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data set cannot be read.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// The embedded data set cannot be generated.
    #[error(transparent)]
    World(#[from] synthetic::Error),
    /// The task cannot be set up.
    #[error(transparent)]
    Task(#[from] task::Error),
    /// The tokenizer cannot be read, or cannot encode a demonstration.
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    /// The tokenizer cannot encode demonstrations.
    #[error(transparent)]
    Encoder(#[from] encoder::Error),
    /// The training file cannot be used.
    #[error(transparent)]
    File(#[from] file_samples::Error),
    /// No training user has a demonstration.
    #[error(
        "no training user of data set {dataset} has a demonstration: expected reasoning of some users (a data set with \
         a reasoning file and demonstration.reasoning_share above 0), or answer.require_thinking = false"
    )]
    NoDemonstration {
        /// Name of the data set.
        dataset: String,
    },
}

/// Demonstrations in training order, without end.
#[derive(Debug)]
pub struct Samples {
    encoder: Encoder,
    origin: Origin,
}

/// Source of the demonstrations.
#[derive(Debug)]
enum Origin {
    Dataset(Box<DatasetSamples>),
    File(FileSamples),
}

/// The demonstrations of a data set's training users.
#[derive(Debug)]
struct DatasetSamples {
    task: Task,
    /// The same with rankings of all candidates, if the curriculum starts with them.
    full_ranking: Option<Task>,
    options: demonstration::Options,
    epoch: u64,
    order: Vec<usize>,
    position: usize,
    /// Whether the current epoch has had a demonstration.
    found: bool,
}

impl Samples {
    /// Creates the demonstrations of a run file, with the tokenizer of a folder. `base`: the folder that template
    /// paths are relative to.
    pub fn new(file: &RunFile, base: &Path, tokenizer: &Path) -> Result<Self, Error> {
        let seed = file.run.seed;
        let dataset = match &file.data.dir {
            Some(dir) => Dataset::load(dir, &file.data)?,
            None => synthetic::generate(&file.world)?,
        };
        let options = file.task();
        let encoder = Encoder::load(file, tokenizer)?;
        let rendered = |task: Task| {
            let (lengths, ends) = (encoder.chat.clone(), encoder.chat.clone());
            task.measured_with(Arc::new(move |prompt| Ok(lengths.length(prompt.messages())?)))
                .ended_with(Arc::new(move |prompt| Ok(ends.generation_prompt(prompt.messages())?)))
        };
        let full_ranking = if file.sft.full_ranking_steps == 0 {
            None
        } else {
            let mut options = options.clone();
            options.answer.list_length = options.candidates.count;
            Some(rendered(Task::new(dataset.clone(), &options, seed, base)?))
        };
        let task = rendered(Task::new(dataset, &options, seed, base)?);
        task.check_thinking()?;
        warn_of_lost_reasoning(&task, &file.demonstration);
        let origin = Origin::Dataset(Box::new(DatasetSamples {
            order: task.training_order(0),
            task,
            full_ranking,
            options: file.demonstration.clone(),
            epoch: 0,
            position: 0,
            found: false,
        }));
        Ok(Self { encoder, origin })
    }

    /// Reads the rows of a training file, repeated in its order. Rows of more than `sft.longest_tokens` tokens are
    /// skipped and reported, never truncated.
    pub fn of_file(file: &RunFile, rows: &Path, tokenizer: &Path) -> Result<Self, Error> {
        let encoder = Encoder::load(file, tokenizer)?;
        let origin = Origin::File(FileSamples::read(rows, file.sft.longest_tokens, &file.answer, &encoder)?);
        Ok(Self { encoder, origin })
    }

    /// Number of tokens of the tokenizer.
    pub fn vocabulary(&self) -> usize {
        self.encoder.chat.tokenizer().vocab_size()
    }

    /// Returns the next demonstration. Only those of a data set support `full_ranking`.
    pub fn draw(&mut self, full_ranking: bool) -> Result<Sample, Error> {
        match &mut self.origin {
            Origin::Dataset(samples) => samples.draw(full_ranking, &self.encoder),
            Origin::File(samples) => Ok(samples.draw()),
        }
    }
}

/// Warns if reasoning is configured but the chat template closes the think block.
fn warn_of_lost_reasoning(task: &Task, options: &demonstration::Options) {
    let asked = options.reasoning_share > 0.0 && !task.dataset().reasoning.is_empty();
    // A case that cannot be created is reported at its use.
    if asked && task.training_case(0, 0).is_ok_and(|case| case.thinking_start.is_closed()) {
        tracing::warn!(
            "the chat template closes the think block in the prompt: demonstrations are without reasoning, although \
             demonstration.reasoning_share is {}",
            options.reasoning_share
        );
    }
}

impl DatasetSamples {
    fn draw(&mut self, full_ranking: bool, encoder: &Encoder) -> Result<Sample, Error> {
        loop {
            if self.position == self.order.len() {
                if !self.found {
                    return Err(Error::NoDemonstration { dataset: self.task.dataset().name.clone() });
                }
                self.epoch += 1;
                self.order = self.task.training_order(self.epoch);
                (self.position, self.found) = (0, false);
            }
            let user = self.order[self.position];
            self.position += 1;
            let task = self.full_ranking.as_ref().filter(|_| full_ranking).unwrap_or(&self.task);
            if let Some(demonstration) = demonstrate(task, &self.options, user, self.epoch)? {
                self.found = true;
                return Ok(encoder.encode(&demonstration.prompt, &demonstration.completion)?);
            }
        }
    }
}
