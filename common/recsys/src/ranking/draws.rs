//! Ranks of targets for several candidate samples of the same users.
//!
//! A user's value is the mean over the candidate samples. Intervals and tests are over users, since samples of one user
//! are not independent.

use super::Metric;
use super::compare::{Comparison, compare};
use super::estimate::{Estimate, estimate_values};

/// Ranks by candidate sample and user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draws {
    candidates: usize,
    /// One list per candidate sample, over the same users in the same order.
    ranks: Vec<Vec<Option<usize>>>,
}

impl Draws {
    /// Creates the ranks of each candidate sample, with the number of candidates.
    ///
    /// # Panics
    /// If the numbers of users differ.
    pub fn new(candidates: usize, ranks: Vec<Vec<Option<usize>>>) -> Self {
        assert!(
            ranks.windows(2).all(|pair| pair[0].len() == pair[1].len()),
            "all candidate samples have the same users"
        );
        Self { candidates, ranks }
    }

    /// Returns the number of candidates per list.
    pub const fn candidates(&self) -> usize {
        self.candidates
    }

    /// Returns the number of users.
    pub fn users(&self) -> usize {
        self.ranks.first().map_or(0, Vec::len)
    }

    /// Selects some of the users.
    #[must_use]
    pub fn of(&self, members: &[usize]) -> Self {
        let ranks = self.ranks.iter().map(|draw| members.iter().map(|&user| draw[user]).collect()).collect();
        Self { candidates: self.candidates, ranks }
    }

    /// Returns each user's value, the mean over the candidate samples.
    pub fn values(&self, metric: Metric) -> Vec<f64> {
        let draws = self.ranks.len() as f64;
        (0..self.users())
            .map(|user| self.ranks.iter().map(|draw| metric.value(draw[user])).sum::<f64>() / draws)
            .collect()
    }

    /// Returns the mean of each metric over the users, with intervals; empty without users.
    pub fn estimates(&self, metrics: &[Metric], seed: u64) -> Vec<Estimate> {
        let values: Vec<Vec<f64>> = metrics.iter().map(|&metric| self.values(metric)).collect();
        estimate_values(&values, seed)
    }

    /// Compares `self` with `other`, over the same users and candidates; `None` without users.
    ///
    /// # Panics
    /// If the numbers of users differ.
    pub fn compare(&self, other: &Self, metric: Metric, seed: u64) -> Option<Comparison> {
        compare(&self.values(metric), &other.values(metric), seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws() -> Draws {
        Draws::new(10, vec![vec![Some(1), None, Some(3)], vec![Some(2), Some(1), Some(3)]])
    }

    #[test]
    fn a_users_value_is_the_mean_over_samples() {
        assert_eq!(draws().values(Metric::Hit(1)), [0.5, 0.5, 0.0]);
        assert_eq!(draws().of(&[2, 0]).values(Metric::Hit(3)), [1.0, 1.0]);
        let estimates = draws().estimates(&[Metric::Hit(1), Metric::Hit(3)], 0);
        assert!((estimates[0].mean - 1.0 / 3.0).abs() < 1e-12, "{estimates:?}");
        assert_eq!(estimates[1].count, 3);
    }

    #[test]
    fn two_rankers_are_compared_user_by_user() {
        let always_first = Draws::new(10, vec![vec![Some(1); 3]; 2]);
        let comparison = always_first.compare(&draws(), Metric::Hit(1), 0).unwrap();
        assert_eq!((comparison.wins, comparison.losses), (3, 0));
        assert_eq!(Draws::new(10, vec![]).compare(&Draws::new(10, vec![]), Metric::Hit(1), 0), None);
    }
}
