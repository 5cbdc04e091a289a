//! Ranking metrics: hit rate, NDCG and reciprocal rank of one relevant item among the candidates.
//!
//! A rank is the target's position in the listed ranking, from 1, or `None` if the target is not listed or the answer
//! is malformed. With one relevant item the ideal DCG is 1, so that NDCG@K = 1 / log₂(rank + 1) for ranks up to K
//! (Järvelin & Kekäläinen 2002), and the mean of reciprocal ranks is MRR (Voorhees 1999).

mod answer;
mod baseline;
mod beyond;
mod compare;
mod draws;
mod estimate;
pub mod knn;
mod outside;
pub mod probes;
mod slices;

use std::fmt;

pub use answer::{CatalogueAnswer, RankedAnswer};
pub use baseline::{Baseline, by_popularity, by_score};
pub use beyond::{BeyondAccuracy, Distance, ListValue};
pub use compare::{Comparison, compare};
pub use draws::Draws;
pub use estimate::{Estimate, estimate_values, paired_differences};
pub use outside::outside_history;
pub use slices::{Slice, slices};

use crate::ids::ItemId;

/// A metric of the target's rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// 1 if the rank is at most K: HR@K.
    Hit(usize),
    /// 1 / log₂(rank + 1) if the rank is at most K: NDCG@K.
    Ndcg(usize),
    /// 1 / rank; its mean is MRR.
    ReciprocalRank,
    /// 1 / rank if the rank is at most K; its mean is MRR@K.
    ReciprocalRankAt(usize),
}

impl Metric {
    /// Returns the value for one user, between 0 and 1; 0 without a rank.
    pub fn value(self, rank: Option<usize>) -> f64 {
        let Some(rank) = rank else { return 0.0 };
        match self {
            Self::Hit(k) => f64::from(rank <= k),
            Self::Ndcg(k) if rank <= k => 1.0 / (rank as f64 + 1.0).log2(),
            Self::ReciprocalRankAt(k) if rank > k => 0.0,
            Self::ReciprocalRank | Self::ReciprocalRankAt(_) => 1.0 / rank as f64,
            Self::Ndcg(_) => 0.0,
        }
    }

    /// Returns the values for users with these `ranks`.
    pub fn values(self, ranks: &[Option<usize>]) -> Vec<f64> {
        ranks.iter().map(|&rank| self.value(rank)).collect()
    }

    /// Returns HR, NDCG and MRR at each K, except for metrics without information for this number of candidates: the
    /// hit rate at the length of the list is always 1, and at 1 the three are equal.
    pub fn at(ks: &[usize], candidates: usize) -> Vec<Self> {
        ks.iter()
            .flat_map(|&k| [Self::Hit(k), Self::Ndcg(k), Self::ReciprocalRankAt(k)])
            .filter(|metric| match *metric {
                Self::Hit(k) => k < candidates,
                Self::Ndcg(k) | Self::ReciprocalRankAt(k) => k > 1,
                Self::ReciprocalRank => true,
            })
            .collect()
    }

    /// Returns the expected value of a random ranking that lists `list_length` of `candidates`.
    pub fn random(self, candidates: usize, list_length: usize) -> f64 {
        if candidates == 0 {
            return 0.0;
        }
        (1..=list_length.min(candidates)).map(|rank| self.value(Some(rank))).sum::<f64>() / candidates as f64
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit(k) => write!(f, "HR@{k}"),
            Self::Ndcg(k) => write!(f, "NDCG@{k}"),
            Self::ReciprocalRank => f.write_str("MRR"),
            Self::ReciprocalRankAt(k) => write!(f, "MRR@{k}"),
        }
    }
}

/// Returns the rank of `target` in `ranking`, from 1.
pub fn rank_of(target: ItemId, ranking: &[ItemId]) -> Option<usize> {
    ranking.iter().position(|&item| item == target).map(|position| position + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_match_the_literature() {
        for (metric, rank, expected) in [
            (Metric::Hit(3), Some(3), 1.0),
            (Metric::Hit(3), Some(4), 0.0),
            (Metric::Ndcg(3), Some(1), 1.0),
            (Metric::Ndcg(3), Some(2), 0.630_929_753_571),
            (Metric::Ndcg(3), Some(3), 0.5),
            (Metric::Ndcg(3), Some(4), 0.0),
            (Metric::ReciprocalRank, Some(4), 0.25),
            (Metric::ReciprocalRank, None, 0.0),
            (Metric::ReciprocalRankAt(3), Some(3), 1.0 / 3.0),
            (Metric::ReciprocalRankAt(3), Some(4), 0.0),
        ] {
            assert!((metric.value(rank) - expected).abs() < 1e-9, "{metric} at {rank:?}");
        }
    }

    #[test]
    fn the_value_of_a_random_ranking_matches_publications() {
        assert!((Metric::Hit(1).random(10, 10) - 0.1).abs() < 1e-12);
        assert!((Metric::Hit(3).random(10, 10) - 0.3).abs() < 1e-12);
        assert!((Metric::Ndcg(3).random(10, 3) - 0.213).abs() < 5e-4);
        assert!((Metric::Ndcg(10).random(100, 10) - 0.045).abs() < 5e-4);
        assert!((Metric::Hit(10).random(3, 10) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn metrics_without_information_are_omitted() {
        let names = |candidates| -> Vec<String> {
            Metric::at(&[1, 3, 10], candidates).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(10), ["HR@1", "HR@3", "NDCG@3", "MRR@3", "NDCG@10", "MRR@10"]);
        assert!(names(100).contains(&"HR@10".to_owned()));
    }

    #[test]
    fn names_match_the_literature() {
        let names: Vec<String> =
            [Metric::Hit(1), Metric::Ndcg(3), Metric::ReciprocalRank].map(|metric| metric.to_string()).into();
        assert_eq!(names, ["HR@1", "NDCG@3", "MRR"]);
    }
}
