//! The weighted sum of terms.

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::rank::Lists;
use super::value::Value;

/// The reward of a completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The weighted sum.
    pub total: f64,
    /// The values of the terms before weighting, in the order of [`super::Rewards::names`].
    pub parts: Vec<f64>,
}

/// Terms with their weights, for lists of one size.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) values: Vec<(Value, f64)>,
    pub(super) lists: Lists,
}

impl Terms {
    /// Returns the weighted sum of the terms of `outcome`.
    pub(super) fn score(&self, outcome: &Outcome) -> Score {
        let parts: Vec<f64> = self.values.iter().map(|(value, _)| value.of(outcome, self.lists)).collect();
        let total = parts.iter().zip(&self.values).map(|(part, (_, weight))| part * weight).sum();
        Score { total, parts }
    }
}
