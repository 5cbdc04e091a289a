//! The reward of a run: validated terms, and credit by rank.

use super::check;
use super::earning::{Extremes, Violation};
use super::error::Error;
use super::options::{Check, Options};
use super::outcome::{Outcome, Question};
use super::rank::{ItemCredit, ItemReward, Lists};
use super::terms::{Score, Terms};
use super::value::Value;
use crate::completion::{self, Parsed};
use crate::ids::ItemId;

/// A validated set of terms.
#[derive(Debug, Clone)]
pub struct Rewards {
    terms: Terms,
    names: Vec<String>,
    rank_credit: ItemCredit,
    item_penalty: f64,
    violations: Vec<Violation>,
}

impl Rewards {
    /// Creates the reward of `options` for answers in the format `answer` to prompts with this many `candidates`. Fails
    /// if an ordering rule is violated, unless [`Options::check`] permits it.
    pub fn new(options: &Options, answer: &completion::Options, candidates: usize) -> Result<Self, Error> {
        let values: Vec<(Value, f64)> = options
            .terms
            .iter()
            .map(|term| Ok((Value::new(term, answer)?, term.weight)))
            .collect::<Result<_, Error>>()?;
        let names: Vec<String> = values.iter().map(|(value, _)| value.name()).collect();
        if values.is_empty() {
            return Err(Error::NoTerms);
        }
        for (at, (name, &(_, weight))) in names.iter().zip(&values).enumerate() {
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
        let terms = Terms { values, lists };
        let violations = check::violations(&terms);
        match (options.check, violations.first()) {
            (Check::Refuse, Some(violation)) => Err(Error::Order(Box::new(violation.clone()))),
            _ => Ok(Self { terms, names, rank_credit, item_penalty, violations }),
        }
    }

    /// Returns the names of the terms, as in the metrics `rewards/<name>/mean`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the weights of the terms, in the order of [`Self::names`].
    pub fn weights(&self) -> Vec<f64> {
        self.terms.values.iter().map(|&(_, weight)| weight).collect()
    }

    /// Returns the properties of a completion with this `text` that its reward depends on.
    pub fn outcome(&self, parsed: &Parsed<'_>, text: &str, question: &Question<'_>) -> Outcome {
        let hard = self.terms.values.iter().find_map(|(value, _)| match value {
            Value::RankPenalty { negatives } => Some(*negatives),
            _ => None,
        });
        Outcome::of(parsed, text, question, self.terms.lists.length, hard.unwrap_or(0))
    }

    /// Returns the reward of `outcome`.
    pub fn score(&self, outcome: &Outcome) -> Score {
        self.terms.score(outcome)
    }

    /// Returns the reward of each listed item, for credit by rank.
    pub fn items(&self, parsed: &Parsed<'_>, target: ItemId) -> Vec<ItemReward> {
        self.rank_credit.rewards(parsed, target, self.terms.lists, self.item_penalty)
    }

    /// Returns the violated rules, each with its largest violation; empty unless [`Options::check`] permits violations.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Returns the highest and lowest rewards with their outcomes.
    pub fn extremes(&self) -> Extremes {
        check::extremes(&self.terms)
    }
}
