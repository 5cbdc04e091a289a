//! Demonstrations as token ids, one after another, epoch after epoch.

use std::path::Path;
use std::sync::Arc;

use podium_config::RunFile;
use podium_recsys::dataset::{self, Dataset};
use podium_recsys::demonstration::{self, Demonstration, demonstrate};
use podium_recsys::prompt::Measure;
use podium_recsys::synthetic;
use podium_recsys::task::{self, Task};
use podium_tokenizer::{Message, Tokenizer, Variables};

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

/// The demonstrations of a data set in training order, without end.
#[derive(Debug)]
pub struct Samples {
    task: Task,
    /// The same with rankings of all candidates, where the curriculum starts with them.
    full_ranking: Option<Task>,
    options: demonstration::Options,
    tokenizer: Arc<Tokenizer>,
    variables: Variables,
    end_of_turn: u32,
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
        let tokenizer = Arc::new(Tokenizer::load(tokenizer)?);
        let variables = Variables::prompt(file.model.enable_thinking, &file.model.template_variables);
        let measure: Arc<Measure> = {
            let (tokenizer, variables) = (tokenizer.clone(), variables.clone());
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
        let end_of_turn = tokenizer.end_of_turn_id().ok_or(Error::NoEndOfTurn)?;
        Ok(Self {
            order: task.training_order(0),
            task,
            full_ranking,
            options: file.demonstration.clone(),
            tokenizer,
            variables,
            end_of_turn,
            epoch: 0,
            position: 0,
            found: false,
        })
    }

    /// Tokens that the tokenizer knows.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    /// The next demonstration.
    pub fn draw(&mut self, full_ranking: bool) -> Result<Sample, Error> {
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
                return self.encode(&demonstration);
            }
        }
    }

    fn encode(&self, demonstration: &Demonstration) -> Result<Sample, Error> {
        let messages: Vec<Message> =
            demonstration.prompt.messages().map(|(role, content)| Message::new(role, content)).collect();
        let prompt = self.tokenizer.encode_chat(&messages, &self.variables)?;
        let mut completion = self.tokenizer.encode(&demonstration.completion)?;
        completion.push(self.end_of_turn);
        Ok(Sample { prompt, completion })
    }
}
