//! Validation of terms, and their values.

use super::error::Error;
use super::outcome::Outcome;
use super::rank::{ItemCredit, Lists};
use super::term::{Name, Term};
use crate::completion::{self, Layout};
use crate::ranking::Metric;

/// Computation of a term.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Form,
    FormIfImproved,
    Ranking(Metric),
    DiscountedHit { k: usize, discount: f64 },
    RankPenalty { negatives: usize },
    CounterfactualSwap,
    Titles,
    Length { limit: usize },
    Paper,
}

impl Value {
    /// Validates a term for answers in the format `answer`.
    pub(super) fn new(term: &Term, answer: &completion::Options) -> Result<Self, Error> {
        let &Term { name, k: rank, discount, negatives, limit, weight: _ } = term;
        let list_length = answer.list_length;
        let k = || match rank {
            Some(k) if (1..=list_length).contains(&k) => Ok(k),
            k => Err(Error::K { name, k, list_length }),
        };
        let at_least_one = |key, value: Option<usize>| match value {
            Some(value) if value >= 1 => Ok(value),
            _ => Err(Error::Needs { name, key, expected: "a number of at least 1" }),
        };
        let (takes, value) = match name {
            Name::Form => ("", Self::Form),
            Name::FormIfImproved => ("", Self::FormIfImproved),
            Name::Hit => ("k", Self::Ranking(Metric::Hit(k()?))),
            Name::Ndcg => ("k", Self::Ranking(Metric::Ndcg(k()?))),
            Name::ReciprocalRank => ("", Self::Ranking(Metric::ReciprocalRank)),
            Name::DiscountedHit => {
                let discount = discount.unwrap_or(0.5);
                if !(0.0..=1.0).contains(&discount) {
                    return Err(Error::Needs { name, key: "discount", expected: "a number from 0 to 1" });
                }
                ("k discount", Self::DiscountedHit { k: k()?, discount })
            }
            Name::RankPenalty => {
                ("negatives", Self::RankPenalty { negatives: at_least_one("negatives", negatives)? })
            }
            Name::CounterfactualSwap => ("", Self::CounterfactualSwap),
            Name::Titles if answer.layout != Layout::Titled => return Err(Error::NotTitled),
            Name::Titles => ("", Self::Titles),
            Name::Length => ("limit", Self::Length { limit: at_least_one("limit", limit)? }),
            Name::Paper => ("", Self::Paper),
        };
        let given = [
            ("k", rank.is_some()),
            ("discount", discount.is_some()),
            ("negatives", negatives.is_some()),
            ("limit", limit.is_some()),
        ];
        match given.into_iter().find(|&(key, given)| given && !takes.split(' ').any(|taken| taken == key)) {
            Some((key, _)) => Err(Error::TakesNot { name, key }),
            None => Ok(value),
        }
    }

    /// Returns its name in metrics.
    pub(super) fn name(self) -> String {
        match self {
            Self::Form => "form".to_owned(),
            Self::FormIfImproved => "form_if_improved".to_owned(),
            Self::Ranking(Metric::Hit(k)) => format!("hit@{k}"),
            Self::Ranking(Metric::Ndcg(k)) => format!("ndcg@{k}"),
            Self::Ranking(Metric::ReciprocalRank) => "reciprocal_rank".to_owned(),
            Self::Ranking(Metric::ReciprocalRankAt(k)) => format!("reciprocal_rank@{k}"),
            Self::DiscountedHit { k, .. } => format!("discounted_hit@{k}"),
            Self::RankPenalty { .. } => "rank_penalty".to_owned(),
            Self::CounterfactualSwap => "counterfactual_swap".to_owned(),
            Self::Titles => "titles".to_owned(),
            Self::Length { .. } => "length".to_owned(),
            Self::Paper => "paper".to_owned(),
        }
    }

    /// Returns the value of `outcome`, before weighting. Except for [`Self::Paper`], a malformed answer has the minimum
    /// value of a well-formed one.
    pub(super) fn of(self, outcome: &Outcome, lists: Lists) -> f64 {
        if self == Self::Paper {
            return match outcome.target_rank {
                _ if outcome.listed == 0 => -1.0,
                Some(1) => 1.0,
                _ => 0.3,
            };
        }
        if outcome.form.is_well_formed() { self.of_well_formed(outcome, lists) } else { self.least(lists) }
    }

    fn of_well_formed(self, outcome: &Outcome, lists: Lists) -> f64 {
        let rank = outcome.target_rank;
        match self {
            Self::Form | Self::Paper => 1.0,
            Self::FormIfImproved => {
                let better = |rank| rank == 1 || rank < outcome.setting.given_rank;
                f64::from(rank.is_some_and(better))
            }
            Self::Ranking(metric) => metric.value(rank),
            Self::DiscountedHit { k, discount } => {
                Metric::Hit(k).value(rank) * (1.0 - discount * outcome.setting.popularity)
            }
            Self::RankPenalty { .. } => -outcome.hard_negatives,
            Self::CounterfactualSwap => swap(rank, lists),
            Self::Titles => outcome.titles,
            Self::Length { limit } => {
                let over = outcome.characters.saturating_sub(limit) as f64 / limit as f64;
                -over.min(1.0)
            }
        }
    }

    /// Returns the minimum value of a well-formed answer.
    fn least(self, lists: Lists) -> f64 {
        match self {
            Self::RankPenalty { .. } | Self::Length { .. } | Self::Paper => -1.0,
            Self::CounterfactualSwap => swap(None, lists),
            _ => 0.0,
        }
    }
}

/// Returns the mean over the list of [`ItemCredit::CounterfactualSwap`].
fn swap(rank: Option<usize>, lists: Lists) -> f64 {
    let items = (1..=lists.length).map(|k| ItemCredit::CounterfactualSwap.of(k, rank, lists));
    items.sum::<f64>() / lists.length.max(1) as f64
}
