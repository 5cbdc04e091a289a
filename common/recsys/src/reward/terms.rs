//! The weighted sum of terms.

use serde::{Deserialize, Serialize};

use super::external::External;
use super::outcome::Outcome;
use super::rank::Lists;
use super::value::Value;

/// The reward of a completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The weighted sum.
    pub total: f64,
    /// The values of the terms before weighting, in the order of [`super::Rewards::names`]; without those of external
    /// terms if [`Outcome::external`] is empty.
    pub parts: Vec<f64>,
}

/// Terms with their weights, for lists of one size.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) values: Vec<(Value, f64)>,
    pub(super) external: Vec<External>,
    pub(super) lists: Lists,
}

impl Terms {
    /// Returns the weighted sum of the terms of `outcome`.
    pub(super) fn score(&self, outcome: &Outcome) -> Score {
        let built_in = self.values.iter().map(|(value, _)| value.of(outcome, self.lists));
        // Gated like the built-in terms.
        let of_external = |(value, term): (&f64, &External)| {
            if outcome.form.is_well_formed() { *value } else { term.min }
        };
        let external = outcome.external.iter().zip(&self.external).map(of_external);
        let parts: Vec<f64> = built_in.chain(external).collect();
        let total = parts.iter().zip(self.weights()).map(|(part, weight)| part * weight).sum();
        Score { total, parts }
    }

    /// Returns the weights of the terms, in their order.
    pub(super) fn weights(&self) -> impl Iterator<Item = f64> {
        self.values.iter().map(|&(_, weight)| weight).chain(self.external.iter().map(|term| term.weight))
    }
}
