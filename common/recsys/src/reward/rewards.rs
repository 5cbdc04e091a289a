//! The reward of a run: validated terms, and credit by rank.

use super::check;
use super::earning::{Extremes, Violation};
use super::error::Error;
use super::external::External;
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
        if values.is_empty() {
            return Err(Error::NoTerms);
        }
        let external = options.external.clone();
        external.iter().try_for_each(External::check)?;
        let terms = Terms { values, external, lists: Lists { length: answer.list_length, candidates } };
        let built_in = terms.values.iter().map(|(value, _)| value.name());
        let names: Vec<String> =
            built_in.chain(terms.external.iter().map(|term| term.name.clone())).collect();
        for (at, (name, weight)) in names.iter().zip(terms.weights()).enumerate() {
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
        self.terms.weights().collect()
    }

    /// Returns the external terms, which are the last ones of [`Self::names`].
    pub fn external(&self) -> &[External] {
        &self.terms.external
    }

    /// Returns the properties of a completion with this `text` that its reward depends on. `external`: the values of
    /// [`Self::external`], or none to reward the completion by the built-in terms alone.
    pub fn outcome(
        &self,
        parsed: &Parsed<'_>,
        text: &str,
        question: &Question<'_>,
        external: Vec<f64>,
    ) -> Outcome {
        let hard = self.terms.values.iter().find_map(|(value, _)| match value {
            Value::RankPenalty { negatives } => Some(*negatives),
            _ => None,
        });
        let outcome = Outcome::of(parsed, text, question, self.terms.lists.length, hard.unwrap_or(0));
        Outcome { external, ..outcome }
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
