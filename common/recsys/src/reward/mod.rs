//! What a completion earns.
//!
//! A reward is a weighted sum of named terms, each a function of an [`Outcome`]: the completion's form, where it ranks the
//! target, and a few bounded facts beside. Every term but one is **gated**: a malformed answer earns in it the least that
//! a well-formed one can, however well it ranks. docs/guides/rewards.md has the formulas; in short, with the target at `rank` (∞
//! if it is not listed):
//!
//! | term | value of a well-formed answer |
//! |---|---|
//! | `form` | 1 |
//! | `form_if_improved` | 1 if rank = 1 or the prompt shows the target at a lower rank, else 0 |
//! | `hit` | 1 if rank ≤ k, else 0 |
//! | `ndcg` | 1 / log₂(rank + 1) if rank ≤ k, else 0 |
//! | `reciprocal_rank` | 1 / rank |
//! | `discounted_hit` | 1 − discount · (share of the items less popular than the target) if rank ≤ k, else 0 |
//! | `rank_penalty` | −Σ 1 / log₂(j + 1) over ranks j < rank of hard negatives, as a share of the whole list's sum |
//! | `counterfactual_swap` | mean over the list of what each item is worth by [`ItemCredit::CounterfactualSwap`] |
//! | `titles` | share of listed items whose written title is the item's |
//! | `length` | −min(1, max(0, characters − limit) / limit) |
//! | `paper` | 1 if rank = 1, else 0.3; not gated: so does a malformed answer, and −1 one that lists nothing |
//!
//! Before a run starts, [`Rewards::violations`] proves of the set of terms, over the ends of everything that they depend
//! on, that no malformed answer earns as much as a well-formed one, that no wrong ranking earns as much as the right one,
//! and that moving the target down never pays. A policy cannot then gain by answering invalidly, and the best it can do
//! is to reason, rank the target first and list what was asked for.

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

/// What completions earn: `[reward]` of the run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The terms whose weighted sum is the reward: see docs/guides/rewards.md.
    pub terms: Vec<Term>,
    /// What happens where the terms pay for the wrong thing.
    pub check: Check,
    /// What each listed item earns where `grpo.credit` is `rank`.
    pub rank_credit: ItemCredit,
    /// How much less an item at fault earns there than the least of a well-formed answer: see docs/guides/rewards.md. Above 0.
    pub item_penalty: f64,
}

/// What happens to a reward that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The run is refused.
    #[default]
    Refuse,
    /// The run goes on with a warning: to reproduce a reward, or to show what it does.
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

/// Why a set of terms is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to earn.
    #[error("`reward.terms` is empty, expected at least one term")]
    NoTerms,
    /// A weight that is no number.
    #[error("`reward.terms`: the weight of `{term}` is {weight}, expected a finite number")]
    Weight {
        /// The term.
        term: String,
        /// Its weight.
        weight: f64,
    },
    /// Malformed items would earn what others do, or more.
    #[error("`reward.item_penalty` is {0}, expected a finite number above 0")]
    ItemPenalty(f64),
    /// `k` is missing or out of range.
    #[error("`reward.terms`: `{name:?}` needs `k` between 1 and the list length {list_length}, found {k:?}")]
    K {
        /// The term.
        name: Name,
        /// What was given.
        k: Option<usize>,
        /// The longest list there is.
        list_length: usize,
    },
    /// Another key is missing or out of range.
    #[error("`reward.terms`: `{name:?}` needs `{key}`, {expected}")]
    Needs {
        /// The term.
        name: Name,
        /// The key.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// A key is given where it means nothing.
    #[error("`reward.terms`: `{name:?}` takes no `{key}`")]
    TakesNot {
        /// The term.
        name: Name,
        /// The key.
        key: &'static str,
    },
    /// Titles are rewarded where none are written.
    #[error("`reward.terms`: `Titles` needs `answer.layout = \"titled\"`")]
    NotTitled,
    /// A term stands there twice.
    #[error("`reward.terms`: `{0}` stands there twice; expected each term once")]
    Twice(String),
    /// An outcome earns too much.
    #[error("the reward is refused: {0} (`reward.check = \"warn\"` lets it through)")]
    Order(Box<Violation>),
}

/// What a completion earned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The weighted sum.
    pub total: f64,
    /// The terms before weighting, in the order of [`Rewards::names`].
    pub parts: Vec<f64>,
}

/// A checked set of terms.
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
    /// The reward of `options` for answers that should look like `answer`, of prompts with so many `candidates`. Where
    /// it pays for the wrong thing it is refused, unless [`Options::check`] says otherwise.
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

    /// Names of the terms, as in the metrics `rewards/<name>/mean`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Weights of the terms, in the order of [`Self::names`].
    pub fn weights(&self) -> Vec<f64> {
        self.terms.iter().map(|&(_, weight)| weight).collect()
    }

    /// What of a completion that reads `text` its reward depends on.
    pub fn outcome(&self, parsed: &Parsed<'_>, text: &str, question: &Question<'_>) -> Outcome {
        let hard = self.terms.iter().find_map(|(value, _)| match value {
            Value::RankPenalty { negatives } => Some(*negatives),
            _ => None,
        });
        Outcome::of(parsed, text, question, self.lists.length, hard.unwrap_or(0))
    }

    /// What `outcome` earns.
    pub fn score(&self, outcome: &Outcome) -> Score {
        let parts: Vec<f64> = self.terms.iter().map(|(value, _)| value.of(outcome, self.lists)).collect();
        let total = parts.iter().zip(&self.terms).map(|(part, (_, weight))| part * weight).sum();
        Score { total, parts }
    }

    /// What each item of a completion's list earns, for credit by rank.
    pub fn items(&self, parsed: &Parsed<'_>, target: ItemId) -> Vec<ItemReward> {
        self.rank_credit.rewards(parsed, target, self.lists, self.item_penalty)
    }

    /// The rules that the terms break, each with the pair of outcomes that breaks it most; none unless
    /// [`Options::check`] let them through.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The most and the least that can be earned, and by what.
    pub fn extremes(&self) -> Extremes {
        check::extremes(self)
    }
}
