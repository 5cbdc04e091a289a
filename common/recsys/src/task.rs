//! The ranking task: turns users into prompts and completions into rewards.
//!
//! Supervised fine-tuning, rollouts and evaluation all use [`Task`]: one template, one parser, one reward. The task
//! knows the target, but does not pass it to the prompt writer.

use std::path::Path;
use std::sync::Arc;

use podium_grpo::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidates::{self, Purpose, Sampler};
use crate::completion::{self, Expected, Parsed, ThinkingStart};
use crate::dataset::{Dataset, HeldOut, TrainingTargets, User};
use crate::ids::{ItemId, UserId};
use crate::prompt::{self, Ends, Measure, Prompt, Prompts, Shortening};
use crate::reward::{self, ItemReward, Outcome, Popularity, Question, Rewards, Score};

/// The sections of the run file that define a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Construction of prompts.
    pub prompt: prompt::Options,
    /// Required format of completions.
    pub answer: completion::Options,
    /// Sampling of candidate lists.
    pub candidates: candidates::Options,
    /// Reward of completions.
    pub reward: reward::Options,
}

/// An error while setting up a task or building a case.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list length is 0 or exceeds the number of candidates.
    #[error("`answer.list_length` is {list_length}, expected 1 to `candidates.count` = {candidates}")]
    ListLength {
        /// Required number of items in an answer.
        list_length: usize,
        /// Number of candidates.
        candidates: usize,
    },
    /// A case does not exist.
    #[error("{kind} case {index} does not exist: expected an index below {count}")]
    NoSuchCase {
        /// Index, from 0.
        index: usize,
        /// "training", "validation" or "test".
        kind: String,
        /// Number of cases.
        count: usize,
    },
    /// A completion with reasoning after a prompt that closes the think block.
    #[error(transparent)]
    Completion(#[from] completion::ThinkingIsOver),
    /// The chat template closes the think block although reasoning is required.
    #[error(
        "answer.require_thinking is true, and the chat template closes the think block in the prompt, so that no answer \
         could be well-formed: expected answer.require_thinking = false, or a template that leaves the block to the \
         completion (model.enable_thinking = true where the template knows it)"
    )]
    ThinkingIsOver,
    /// Candidate lists cannot be sampled.
    #[error("cannot sample candidates")]
    Candidates(#[from] candidates::Error),
    /// Prompts cannot be written.
    #[error("cannot write prompts")]
    Prompt(#[from] prompt::Error),
    /// The reward is invalid.
    #[error("cannot reward completions")]
    Reward(#[from] reward::Error),
}

/// A data set with everything needed to turn its users into prompts and completions into rewards.
#[derive(Debug)]
pub struct Task {
    dataset: Dataset,
    answer: completion::Options,
    prompts: Prompts,
    sampler: Sampler,
    rewards: Rewards,
    popularity: Popularity,
    seed: u64,
    /// User index and target position, by index of training case.
    training: Vec<(usize, usize)>,
}

/// One question to the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The user.
    pub user: UserId,
    /// Number of interactions before the target, which is also its position; the prompt may show fewer.
    pub past: usize,
    /// The history in the prompt, oldest first.
    pub history: Vec<ItemId>,
    /// The candidates, in the order of the prompt; empty for the whole catalogue.
    pub candidates: Vec<ItemId>,
    /// The target, which is one of the candidates if there are some.
    pub target: ItemId,
    /// The prompt.
    pub prompt: Prompt,
    /// Shortening of the prompt to its budget.
    pub shortening: Shortening,
    /// State of the think block at the end of the prompt, which completions continue.
    pub thinking_start: ThinkingStart,
}

/// A parsed completion: its format, its ranking and its rewards.
#[derive(Debug, Clone, PartialEq)]
pub struct Grade {
    /// Its format, and the rank of the target.
    pub outcome: Outcome,
    /// Its reward.
    pub score: Score,
    /// The listed items, best first.
    pub ranking: Vec<ItemId>,
    /// The reward of each listed item, best rank first, for credit by rank.
    pub item_rewards: Vec<ItemReward>,
}

impl Task {
    /// Creates the task of `options` over `dataset` in a run with `seed`. The path of a template is relative to `base`.
    pub fn new(dataset: Dataset, options: &Options, seed: u64, base: &Path) -> Result<Self, Error> {
        let (list_length, candidates) = (options.answer.list_length, options.candidates.count);
        if !(1..=candidates).contains(&list_length) {
            return Err(Error::ListLength { list_length, candidates });
        }
        Ok(Self {
            sampler: Sampler::of(&options.candidates, &dataset, seed)?,
            prompts: Prompts::new(&options.prompt, &options.answer, base)?,
            rewards: Rewards::new(&options.reward, &options.answer, candidates)?,
            popularity: Popularity::of(&dataset.catalogue),
            answer: options.answer.clone(),
            training: training_cases(&dataset),
            dataset,
            seed,
        })
    }

    /// Sets the token counter, which `prompt.max_tokens` requires. All processes of a run must use the same counter.
    #[must_use]
    pub fn measured_with(mut self, measure: Arc<Measure>) -> Self {
        self.prompts.measure_with(measure);
        self
    }

    /// Sets the chat template's generation prompt, which completions continue. Without it completions begin before the
    /// think block. All processes of a run must use the same template.
    #[must_use]
    pub fn ended_with(mut self, ends: Arc<Ends>) -> Self {
        self.prompts.end_with(ends);
        self
    }

    /// Checks that the chat template leaves the think block open if reasoning is required, using
    /// the prompt of the first training case. Other errors of that case are reported when the case
    /// is used.
    pub fn check_thinking(&self) -> Result<(), Error> {
        match self.training_case(0, 0) {
            Err(error @ Error::ThinkingIsOver) => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the data set.
    pub const fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Returns the reward.
    pub const fn rewards(&self) -> &Rewards {
        &self.rewards
    }

    /// Returns the required format of completions.
    pub const fn answer(&self) -> &completion::Options {
        &self.answer
    }

    /// Returns the seed of the run.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the number of training cases per epoch.
    pub const fn training_cases(&self) -> usize {
        self.training.len()
    }

    /// Returns the order of the training cases in an epoch, counted from 0.
    pub fn training_order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.training.len()).collect();
        Stream::new(self.seed, "training order", &[epoch]).shuffle(&mut order);
        order
    }

    /// Returns the `index`-th training case in an epoch, with the candidates of that epoch. With `data.training_targets
    /// = "last"` it belongs to the `index`-th training user.
    pub fn training_case(&self, index: usize, epoch: u64) -> Result<Case, Error> {
        let (user, target) = self.training_target(index)?;
        let candidates = self.sampler.draw(user, target, Purpose::Training { epoch })?;
        self.case(user, target, candidates)
    }

    /// Returns the reasoning for the `index`-th training case, which exists only for a user's last target.
    pub fn reasoning(&self, index: usize) -> Result<Option<&str>, Error> {
        let (user, target) = self.training_target(index)?;
        let is_last = target + 1 == user.items.len();
        let reasoning = self.dataset.reasoning.get(&user.id).filter(|_| is_last);
        Ok(reasoning.map(String::as_str))
    }

    fn training_target(&self, index: usize) -> Result<(&User, usize), Error> {
        let count = self.training.len();
        let &(user, target) = self.training.get(index).ok_or_else(|| Error::NoSuchCase {
            index,
            kind: "training".to_owned(),
            count,
        })?;
        Ok((&self.dataset.train[user], target))
    }

    /// Returns the case of the `index`-th user of a held-out part, the same in every run; `draw` is the index of the user's
    /// candidate sample, from 0.
    pub fn held_out_case(&self, part: HeldOut, index: usize, draw: u64) -> Result<Case, Error> {
        let (user, target, candidates) = self.held_out(part, index, draw)?;
        self.case(user, target, candidates)
    }

    /// Returns the same case with its candidates in reverse order.
    pub fn reversed_held_out_case(&self, part: HeldOut, index: usize, draw: u64) -> Result<Case, Error> {
        let (user, target, mut candidates) = self.held_out(part, index, draw)?;
        candidates.reverse();
        self.case(user, target, candidates)
    }

    fn held_out(&self, part: HeldOut, index: usize, draw: u64) -> Result<(&User, usize, Vec<ItemId>), Error> {
        let (user, target) = self.held_out_target(part, index)?;
        Ok((user, target, self.sampler.draw(user, target, Purpose::Evaluation { part, draw })?))
    }

    /// Returns the `index`-th user of a held-out part and the position of the target.
    fn held_out_target(&self, part: HeldOut, index: usize) -> Result<(&User, usize), Error> {
        let users = self.dataset.held_out(part);
        let no_such_case = || Error::NoSuchCase { index, kind: part.to_string(), count: users.len() };
        let user = users.get(index).ok_or_else(no_such_case)?;
        Ok((user, user.items.len() - 1))
    }

    /// Returns the case of the same user without a candidate list: the prompt has none, and every item of the catalogue is
    /// an answer.
    pub fn catalogue_case(&self, part: HeldOut, index: usize) -> Result<Case, Error> {
        let (user, target) = self.held_out_target(part, index)?;
        self.case(user, target, Vec::new())
    }

    /// Builds the case with the item at `position` of a user as the target.
    fn case(&self, user: &User, position: usize, candidates: Vec<ItemId>) -> Result<Case, Error> {
        let history = user.history_of(position, self.dataset.max_history);
        let (prompt, shortening) =
            self.prompts.write(&self.dataset.catalogue, user.id, history, &candidates)?;
        let thinking_start = self.prompts.thinking_start(user.id, &prompt)?;
        if thinking_start.is_closed() && self.answer.require_thinking {
            return Err(Error::ThinkingIsOver);
        }
        let history = history[shortening.history_left_out..].to_vec();
        let target = user.items[position];
        let user = user.id;
        Ok(Case { user, past: position, history, candidates, target, prompt, shortening, thinking_start })
    }

    /// Parses `completion`, up to its stop token.
    pub fn parse<'a>(&self, case: &Case, completion: &'a str) -> Parsed<'a> {
        completion::parse(
            completion,
            &Expected {
                options: &self.answer,
                candidates: &case.candidates,
                catalogue: &self.dataset.catalogue,
                thinking_start: case.thinking_start,
            },
        )
    }

    /// Parses `completion` and scores it by the built-in terms. Records and training use no other source for the format
    /// and ranking of a completion's text.
    pub fn grade(&self, case: &Case, completion: &str) -> Grade {
        self.grade_with(case, completion, Vec::new())
    }

    /// The same with the values of the external terms, in the order of [`Rewards::external`].
    pub fn grade_with(&self, case: &Case, completion: &str, external: Vec<f64>) -> Grade {
        let parsed = self.parse(case, completion);
        let question = Question {
            target: case.target,
            candidates: &case.candidates,
            catalogue: &self.dataset.catalogue,
            popularity: &self.popularity,
        };
        let outcome = self.rewards.outcome(&parsed, completion, &question, external);
        Grade {
            score: self.rewards.score(&outcome),
            ranking: parsed.ranking.iter().map(|listed| listed.item).collect(),
            item_rewards: self.rewards.items(&parsed, case.target),
            outcome,
        }
    }
}

/// Returns the users and targets of training, in file order.
fn training_cases(dataset: &Dataset) -> Vec<(usize, usize)> {
    let targets = |user: &User| match dataset.training_targets {
        TrainingTargets::Last => user.items.len() - 1..user.items.len(),
        TrainingTargets::Every => 1..user.items.len(),
    };
    let of_user = |(index, user)| targets(user).map(move |target| (index, target));
    dataset.train.iter().enumerate().flat_map(of_user).collect()
}
