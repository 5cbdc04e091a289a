//! Demonstrations as token ids, one after another, epoch after epoch: made of a data set, or read from a training file.

use std::path::Path;
use std::sync::Arc;

use podium_config::RunFile;
use podium_recsys::dataset::{self, Dataset};
use podium_recsys::demonstration::{self, demonstrate};
use podium_recsys::prompt::{Measure, Prompt};
use podium_recsys::synthetic;
use podium_recsys::task::{self, Task};
use podium_tokenizer::{Message, Tokenizer, Variables};

use super::file_samples::{self, FileSamples};

/// Why there is nothing to imitate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data set cannot be read.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// The embedded data set cannot be made.
    #[error(transparent)]
    World(#[from] synthetic::Error),
    /// The task cannot be set up.
    #[error(transparent)]
    Task(#[from] task::Error),
    /// The tokenizer cannot be read, or cannot write a demonstration.
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    /// A completion has to end with something.
    #[error(
        "the tokenizer has no end-of-turn token: expected an eos_token_id in generation_config.json or config.json"
    )]
    NoEndOfTurn,
    /// The training file cannot be used.
    #[error(transparent)]
    File(#[from] file_samples::Error),
    /// Not one training user has something to imitate.
    #[error(
        "no training user of data set {dataset} has a demonstration: expected reasoning of some users (a data set with \
         a reasoning file and demonstration.reasoning_share above 0), or answer.require_thinking = false"
    )]
    NoDemonstration {
        /// Name of the data set.
        dataset: String,
    },
}

/// A demonstration as the policy reads and writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The rendered prompt, up to where the policy writes.
    pub prompt: Vec<u32>,
    /// What it should write, the end-of-turn token included.
    pub completion: Vec<u32>,
}

/// Demonstrations in training order, without end.
#[derive(Debug)]
pub struct Samples {
    encoder: Encoder,
    origin: Origin,
}

/// Where demonstrations come from.
#[derive(Debug)]
enum Origin {
    Dataset(Box<DatasetSamples>),
    File(FileSamples),
}

/// Turns texts into token ids, as rollouts do.
#[derive(Debug)]
pub(super) struct Encoder {
    tokenizer: Arc<Tokenizer>,
    variables: Variables,
    end_of_turn: u32,
}

/// The demonstrations of a data set's training users.
#[derive(Debug)]
struct DatasetSamples {
    task: Task,
    /// The same with rankings of all candidates, where the curriculum starts with them.
    full_ranking: Option<Task>,
    options: demonstration::Options,
    epoch: u64,
    order: Vec<usize>,
    position: usize,
    /// Whether the current epoch had any demonstration yet.
    found: bool,
}

impl Samples {
    /// The demonstrations that a run file describes, with the tokenizer of a folder. `base`: the folder that template
    /// paths are relative to.
    pub fn new(file: &RunFile, base: &Path, tokenizer: &Path) -> Result<Self, Error> {
        let seed = file.run.seed;
        let dataset = match &file.data.dir {
            Some(dir) => Dataset::load(dir, &file.data)?,
            None => synthetic::generate(&file.world)?,
        };
        let options = file.task();
        let encoder = Encoder::load(file, tokenizer)?;
        let measure: Arc<Measure> = {
            let (tokenizer, variables) = (encoder.tokenizer.clone(), encoder.variables.clone());
            Arc::new(move |prompt| Ok(tokenizer.chat_length(prompt.messages(), &variables)?))
        };
        let full_ranking = if file.sft.full_ranking_steps == 0 {
            None
        } else {
            let mut options = options.clone();
            options.answer.list_length = options.candidates.count;
            Some(Task::new(dataset.clone(), &options, seed, base)?.measured_with(measure.clone()))
        };
        let task = Task::new(dataset, &options, seed, base)?.measured_with(measure);
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

    /// The rows of a training file of mixed grain, again and again in its order. Rows of more than `sft.longest_tokens`
    /// tokens are left out and reported, never cut.
    pub fn of_file(file: &RunFile, rows: &Path, tokenizer: &Path) -> Result<Self, Error> {
        let encoder = Encoder::load(file, tokenizer)?;
        let origin = Origin::File(FileSamples::read(rows, file.sft.longest_tokens, &encoder)?);
        Ok(Self { encoder, origin })
    }

    /// Tokens that the tokenizer knows.
    pub fn vocabulary(&self) -> usize {
        self.encoder.tokenizer.vocab_size()
    }

    /// The next demonstration. Only those of a data set can rank all candidates.
    pub fn draw(&mut self, full_ranking: bool) -> Result<Sample, Error> {
        match &mut self.origin {
            Origin::Dataset(samples) => samples.draw(full_ranking, &self.encoder),
            Origin::File(samples) => Ok(samples.draw()),
        }
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

impl Encoder {
    fn load(file: &RunFile, tokenizer: &Path) -> Result<Self, Error> {
        let tokenizer = Arc::new(Tokenizer::load(tokenizer)?);
        tokenizer.check_for_training()?;
        let end_of_turn = tokenizer.end_of_turn_id().ok_or(Error::NoEndOfTurn)?;
        let variables = Variables::prompt(file.model.enable_thinking, &file.model.template_variables);
        Ok(Self { tokenizer, variables, end_of_turn })
    }

    /// A prompt and the completion to imitate, with the end-of-turn token after it.
    pub(super) fn encode(
        &self,
        prompt: &Prompt,
        completion: &str,
    ) -> Result<Sample, podium_tokenizer::Error> {
        let messages: Vec<Message> =
            prompt.messages().map(|(role, content)| Message::new(role, content)).collect();
        let prompt = self.tokenizer.encode_chat(&messages, &self.variables)?;
        let mut completion = self.tokenizer.encode(completion)?;
        completion.push(self.end_of_turn);
        Ok(Sample { prompt, completion })
    }
}
