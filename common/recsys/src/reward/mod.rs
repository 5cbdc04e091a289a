//! Rewards of completions.
//!
//! A reward is a weighted sum of named terms, each a function of an [`Outcome`]: the completion's format, the rank of
//! the target, and a few further properties. All terms except one are **gated**: the value of a malformed answer is the
//! minimum over well-formed ones, whatever its ranking. docs/guides/rewards.md has the formulas. In short, with the
//! target at `rank` (∞ if it is not listed):
//!
//! | term | value of a well-formed answer |
//! |---|---|
//! | `form` | 1 |
//! | `form_if_improved` | 1 if rank = 1 or the prompt shows the target at a lower rank, else 0 |
//! | `hit` | 1 if rank ≤ k, else 0 |
//! | `ndcg` | 1 / log₂(rank + 1) if rank ≤ k, else 0 |
//! | `reciprocal_rank` | 1 / rank |
//! | `discounted_hit` | 1 − discount · (fraction of the items less popular than the target) if rank ≤ k, else 0 |
//! | `rank_penalty` | −Σ 1 / log₂(j + 1) over ranks j < rank of hard negatives, as a fraction of the whole list's sum |
//! | `counterfactual_swap` | mean over the list of each item's value by [`ItemCredit::CounterfactualSwap`] |
//! | `titles` | fraction of listed items with the correct title |
//! | `length` | −min(1, max(0, characters − limit) / limit) |
//! | `paper` | 1 if rank = 1, else 0.3; not gated: also for malformed answers; −1 without a list |
//!
//! Before a run starts, [`Rewards::violations`] checks the terms over the limits of all properties that they depend on:
//! every malformed answer earns less than every well-formed one, every wrong ranking less than the correct one, and
//! moving the target down never increases the reward. A policy therefore cannot gain from invalid answers, and the
//! highest reward requires reasoning, the target at rank 1 and a complete list.

mod check;
mod outcome;
mod rank;
mod term;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::{Earning, Extremes, Violation};
pub use outcome::{Outcome, Popularity, Question, Setting};
pub(crate) use rank::Lists;
pub use rank::{ItemCredit, ItemReward};
pub use term::{Name, Term};

use crate::completion::{self, Parsed};
use crate::ids::ItemId;
use term::Value;

/// The reward of completions: `[reward]` of the run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The terms whose weighted sum is the reward: see docs/guides/rewards.md.
    pub terms: Vec<Term>,
    /// Handling of a reward that violates the ordering rules.
    pub check: Check,
    /// Reward of each listed item if `grpo.credit` is `rank`.
    pub rank_credit: ItemCredit,
    /// Amount by which the reward of a defective item is below the minimum of a well-formed answer's items: see
    /// docs/guides/rewards.md. Above 0.
    pub item_penalty: f64,
}

/// Handling of a reward that violates the ordering rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The run is rejected.
    #[default]
    Refuse,
    /// The run continues with a warning, for example to reproduce a published reward.
    Warn,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            terms: vec![
                Term { weight: 0.1, ..Term::new(Name::Form) },
                Term { k: Some(1), weight: 0.5, ..Term::new(Name::Hit) },
                Term { k: Some(3), weight: 0.5, ..Term::new(Name::Ndcg) },
            ],
            check: Check::default(),
            rank_credit: ItemCredit::default(),
            item_penalty: 0.5,
        }
    }
}

/// An error in the reward configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no terms.
    #[error("`reward.terms` is empty, expected at least one term")]
    NoTerms,
    /// A weight is not a finite number.
    #[error("`reward.terms`: the weight of `{term}` is {weight}, expected a finite number")]
    Weight {
        /// The term.
        term: String,
        /// Its weight.
        weight: f64,
    },
    /// Defective items would earn at least as much as others.
    #[error("`reward.item_penalty` is {0}, expected a finite number above 0")]
    ItemPenalty(f64),
    /// `k` is missing or out of range.
    #[error(
        "`reward.terms`: `{name:?}` requires `k` between 1 and the list length {list_length}, found {k:?}"
    )]
    K {
        /// The term.
        name: Name,
        /// The given value.
        k: Option<usize>,
        /// Length of a full list.
        list_length: usize,
    },
    /// Another key is missing or out of range.
    #[error("`reward.terms`: `{name:?}` requires `{key}`, {expected}")]
    Needs {
        /// The term.
        name: Name,
        /// The key.
        key: &'static str,
        /// The permitted values.
        expected: &'static str,
    },
    /// A key does not apply to the term.
    #[error("`reward.terms`: `{name:?}` does not support `{key}`")]
    TakesNot {
        /// The term.
        name: Name,
        /// The key.
        key: &'static str,
    },
    /// Titles are rewarded in a layout without titles.
    #[error("`reward.terms`: `Titles` requires `answer.layout = \"titled\"`")]
    NotTitled,
    /// A term is listed twice.
    #[error("`reward.terms`: `{0}` is listed twice; expected each term once")]
    Twice(String),
    /// The reward violates an ordering rule.
    #[error("the reward is rejected: {0} (set `reward.check = \"warn\"` to use it anyway)")]
    Order(Box<Violation>),
}

/// The reward of a completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The weighted sum.
    pub total: f64,
    /// The values of the terms before weighting, in the order of [`Rewards::names`].
    pub parts: Vec<f64>,
}

/// A validated set of terms.
#[derive(Debug, Clone)]
pub struct Rewards {
    terms: Vec<(Value, f64)>,
    names: Vec<String>,
    lists: Lists,
    rank_credit: ItemCredit,
    item_penalty: f64,
    violations: Vec<Violation>,
}

impl Rewards {
    /// Creates the reward of `options` for answers in the format `answer` to prompts with this many `candidates`. Fails
    /// if an ordering rule is violated, unless [`Options::check`] permits it.
    pub fn new(options: &Options, answer: &completion::Options, candidates: usize) -> Result<Self, Error> {
        let terms: Vec<(Value, f64)> = options
            .terms
            .iter()
            .map(|term| Ok((Value::new(term, answer)?, term.weight)))
            .collect::<Result<_, Error>>()?;
        let names: Vec<String> = terms.iter().map(|(value, _)| value.name()).collect();
        if terms.is_empty() {
            return Err(Error::NoTerms);
        }
        for (at, (name, &(_, weight))) in names.iter().zip(&terms).enumerate() {
            if !weight.is_finite() {
                return Err(Error::Weight { term: name.clone(), weight });
            }
            if names[..at].contains(name) {
                return Err(Error::Twice(name.clone()));
            }
        }
        let Options { rank_credit, item_penalty, .. } = *options;
        if !(item_penalty.is_finite() && item_penalty > 0.0) {
            return Err(Error::ItemPenalty(item_penalty));
        }
        let lists = Lists { length: answer.list_length, candidates };
        let mut rewards = Self { terms, names, lists, rank_credit, item_penalty, violations: Vec::new() };
        rewards.violations = check::violations(&rewards);
        match (options.check, rewards.violations.first()) {
            (Check::Refuse, Some(violation)) => Err(Error::Order(Box::new(violation.clone()))),
            _ => Ok(rewards),
        }
    }

    /// Returns the names of the terms, as in the metrics `rewards/<name>/mean`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the weights of the terms, in the order of [`Self::names`].
    pub fn weights(&self) -> Vec<f64> {
        self.terms.iter().map(|&(_, weight)| weight).collect()
    }

    /// Returns the properties of a completion with this `text` that its reward depends on.
    pub fn outcome(&self, parsed: &Parsed<'_>, text: &str, question: &Question<'_>) -> Outcome {
        let hard = self.terms.iter().find_map(|(value, _)| match value {
            Value::RankPenalty { negatives } => Some(*negatives),
            _ => None,
        });
        Outcome::of(parsed, text, question, self.lists.length, hard.unwrap_or(0))
    }

    /// Returns the reward of `outcome`.
    pub fn score(&self, outcome: &Outcome) -> Score {
        let parts: Vec<f64> = self.terms.iter().map(|(value, _)| value.of(outcome, self.lists)).collect();
        let total = parts.iter().zip(&self.terms).map(|(part, (_, weight))| part * weight).sum();
        Score { total, parts }
    }

    /// Returns the reward of each listed item, for credit by rank.
    pub fn items(&self, parsed: &Parsed<'_>, target: ItemId) -> Vec<ItemReward> {
        self.rank_credit.rewards(parsed, target, self.lists, self.item_penalty)
    }

    /// Returns the violated rules, each with its largest violation; empty unless [`Options::check`] permits violations.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Returns the highest and lowest rewards with their outcomes.
    pub fn extremes(&self) -> Extremes {
        check::extremes(self)
    }
}
