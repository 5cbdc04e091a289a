//! Errors of the reward configuration.

use super::earning::Violation;
use super::term::Name;

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
    /// A key of an external term is missing or out of range.
    #[error("`reward.external`: `{key}` of the term {name:?} is {value}, expected {expected}")]
    External {
        /// The term.
        name: String,
        /// The key.
        key: &'static str,
        /// The given value.
        value: String,
        /// The permitted values.
        expected: &'static str,
    },
    /// A term is listed twice.
    #[error("`reward.terms` and `reward.external`: `{0}` is listed twice; expected each term once")]
    Twice(String),
    /// The reward violates an ordering rule.
    #[error("the reward is rejected: {0} (set `reward.check = \"warn\"` to use it anyway)")]
    Order(Box<Violation>),
}
