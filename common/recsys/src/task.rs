//! The ranking task: from a user to a prompt, and from a completion to what it earns.
//!
//! Supervised fine-tuning, rollouts and evaluation all go through [`Task`]: one template, one parser, one reward. The
//! target is known here, and reaches neither the prompt nor anything that writes one.

use std::path::Path;
use std::sync::Arc;

use podium_grpo::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidates::{self, Purpose, Sampler};
use crate::completion::{self, Expected, Parsed, ThinkingStart};
use crate::dataset::{Dataset, TrainingTargets, User};
use crate::ids::{ItemId, UserId};
use crate::prompt::{self, Ends, Measure, Prompt, Prompts, Shortening};
use crate::reward::{self, ItemReward, Outcome, Popularity, Question, Rewards, Score};

/// The sections of the run file that make a task of a data set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How prompts are written.
    pub prompt: prompt::Options,
    /// What completions should look like.
    pub answer: completion::Options,
    /// How candidate lists are drawn.
    pub candidates: candidates::Options,
    /// What completions earn.
    pub reward: reward::Options,
}

/// Why a task cannot be set up, or a case not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An empty list, or one longer than the candidates.
    #[error("`answer.list_length` is {list_length}, expected 1 to `candidates.count` = {candidates}")]
    ListLength {
        /// How many items an answer should list.
        list_length: usize,
        /// How many candidates there are.
        candidates: usize,
    },
    /// There is no such case.
    #[error("{kind} case {index} was asked for, there are {count}")]
    NoSuchCase {
        /// Counted from 0.
        index: usize,
        /// "training" or "held-out".
        kind: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A completion that reasons where nothing can be thought.
    #[error(transparent)]
    Completion(#[from] completion::ThinkingIsOver),
    /// Nothing can be thought where thinking is required.
    #[error(
        "answer.require_thinking is true, and the chat template closes the think block in the prompt, so that no answer \
         could be well-formed: expected answer.require_thinking = false, or a template that leaves the block to the \
         completion (model.enable_thinking = true where the template knows it)"
    )]
    ThinkingIsOver,
    /// Candidate lists cannot be drawn.
    #[error("cannot draw candidates")]
    Candidates(#[from] candidates::Error),
    /// Prompts cannot be written.
    #[error("cannot write prompts")]
    Prompt(#[from] prompt::Error),
    /// The reward is refused.
    #[error("cannot reward completions")]
    Reward(#[from] reward::Error),
}

/// A data set with everything that turns its users into prompts and completions into scores.
#[derive(Debug)]
pub struct Task {
    dataset: Dataset,
    answer: completion::Options,
    prompts: Prompts,
    sampler: Sampler,
    rewards: Rewards,
    popularity: Popularity,
    seed: u64,
    /// Which user, and which of their items is the target, by index of training case.
    training: Vec<(usize, usize)>,
}

/// One question to the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Whom it is about.
    pub user: UserId,
    /// How many interactions they have before the target, which is also its place among them; the prompt may show fewer.
    pub past: usize,
    /// What the prompt shows of their history, oldest first.
    pub history: Vec<ItemId>,
    /// What is to be ranked, in the order shown.
    pub candidates: Vec<ItemId>,
    /// The right answer. It is one of the candidates.
    pub target: ItemId,
    /// What the policy reads.
    pub prompt: Prompt,
    /// What was shortened in it to fit its budget.
    pub shortening: Shortening,
    /// How far the think block is where the chat template ends the prompt: what completions go on from.
    pub thinking_start: ThinkingStart,
}

/// What became of a completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Grade {
    /// Its shape, and where it ranks the target.
    pub outcome: Outcome,
    /// What it earned.
    pub score: Score,
}

impl Task {
    /// The task of `options` over `dataset` in a run seeded with `seed`. The path of a template is relative to `base`.
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

    /// The same with someone who counts tokens, as `prompt.max_tokens` needs it. Everybody who writes prompts of a run
    /// has to count alike.
    #[must_use]
    pub fn measured_with(mut self, measure: Arc<Measure>) -> Self {
        self.prompts.measure_with(measure);
        self
    }

    /// The same with the chat template's end of prompts, from which completions are read and written. Without it
    /// completions begin before the think block. All processes of a run have to use the same template.
    #[must_use]
    pub fn ended_with(mut self, ends: Arc<Ends>) -> Self {
        self.prompts.end_with(ends);
        self
    }

    /// Refuses a chat template that closes the think block where thinking is required, as the prompt of the first
    /// training case shows it. Whatever else is wrong with that case is reported where the case is used.
    pub fn check_thinking(&self) -> Result<(), Error> {
        match self.training_case(0, 0) {
            Err(error @ Error::ThinkingIsOver) => Err(error),
            _ => Ok(()),
        }
    }

    /// The data set.
    pub const fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The reward.
    pub const fn rewards(&self) -> &Rewards {
        &self.rewards
    }

    /// What completions should look like.
    pub const fn answer(&self) -> &completion::Options {
        &self.answer
    }

    /// The seed of the run.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// How many cases an epoch of training has.
    pub const fn training_cases(&self) -> usize {
        self.training.len()
    }

    /// In which order an epoch, counted from 0, goes through the training cases.
    pub fn training_order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.training.len()).collect();
        Stream::new(self.seed, "training order", &[epoch]).shuffle(&mut order);
        order
    }

    /// The `index`-th training case in an epoch, with candidates drawn for that epoch. With `data.training_targets =
    /// "last"` it is that of the `index`-th training user.
    pub fn training_case(&self, index: usize, epoch: u64) -> Result<Case, Error> {
        let (user, target) = self.training_target(index)?;
        let candidates = self.sampler.draw(user, target, Purpose::Training { epoch })?;
        self.case(user, target, candidates)
    }

    /// The reasoning that may be shown with the `index`-th training case. It is about its user's last target.
    pub fn reasoning(&self, index: usize) -> Result<Option<&str>, Error> {
        let (user, target) = self.training_target(index)?;
        let is_last = target + 1 == user.items.len();
        let reasoning = self.dataset.reasoning.get(&user.id).filter(|_| is_last);
        Ok(reasoning.map(String::as_str))
    }

    fn training_target(&self, index: usize) -> Result<(&User, usize), Error> {
        let count = self.training.len();
        let &(user, target) =
            self.training.get(index).ok_or(Error::NoSuchCase { index, kind: "training", count })?;
        Ok((&self.dataset.train[user], target))
    }

    /// The case of the `index`-th held-out user, the same in every run; `draw` counts the candidate lists of a user
    /// from 0.
    pub fn held_out_case(&self, index: usize, draw: u64) -> Result<Case, Error> {
        let (user, target, candidates) = self.held_out(index, draw)?;
        self.case(user, target, candidates)
    }

    /// The same case with its candidates in the reverse order.
    pub fn reversed_held_out_case(&self, index: usize, draw: u64) -> Result<Case, Error> {
        let (user, target, mut candidates) = self.held_out(index, draw)?;
        candidates.reverse();
        self.case(user, target, candidates)
    }

    fn held_out(&self, index: usize, draw: u64) -> Result<(&User, usize, Vec<ItemId>), Error> {
        let test = &self.dataset.test;
        let count = test.len();
        let user = test.get(index).ok_or(Error::NoSuchCase { index, kind: "held-out", count })?;
        let target = user.items.len() - 1;
        Ok((user, target, self.sampler.draw(user, target, Purpose::Evaluation { draw })?))
    }

    /// The case of the item at `position` of a user's.
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

    /// Reads `completion`, as the policy wrote it up to its stop token.
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

    /// Reads `completion` and scores it.
    pub fn grade(&self, case: &Case, completion: &str) -> Grade {
        let parsed = self.parse(case, completion);
        let question = Question {
            target: case.target,
            candidates: &case.candidates,
            catalogue: &self.dataset.catalogue,
            popularity: &self.popularity,
        };
        let outcome = self.rewards.outcome(&parsed, completion, &question);
        Grade { outcome, score: self.rewards.score(&outcome) }
    }

    /// What each listed item of `completion` earns, best rank first, for credit by rank.
    pub fn item_rewards(&self, case: &Case, completion: &str) -> Vec<ItemReward> {
        let parsed = self.parse(case, completion);
        self.rewards.items(&parsed, case.target)
    }
}

/// Users and targets that training asks for, in the order of the file.
fn training_cases(dataset: &Dataset) -> Vec<(usize, usize)> {
    let targets = |user: &User| match dataset.training_targets {
        TrainingTargets::Last => user.items.len() - 1..user.items.len(),
        TrainingTargets::Every => 1..user.items.len(),
    };
    let of_user = |(index, user)| targets(user).map(move |target| (index, target));
    dataset.train.iter().enumerate().flat_map(of_user).collect()
}
