//! Compares two rankings with a paired randomisation test.
//!
//! Under the null hypothesis that both rankers are equally good, the sign of each user's difference is random. The
//! test samples signs 10,000 times. The p-value is the fraction of samples whose mean difference is at least as
//! far from 0 as the observed one, which counts as a sample (Fisher 1935; Smucker, Allan & Carterette 2007 for
//! retrieval). The test is two-sided, and its samples are determined by a seed.

use podium_grpo::rng::Stream;
use serde::{Deserialize, Serialize};

use super::estimate::{Estimate, estimate_values};

/// Number of sign samples.
const DRAWS: usize = 10_000;

/// Comparison of two rankers on the same users.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Mean difference over users, first minus second, with its 95 % interval.
    pub difference: Estimate,
    /// The two-sided p-value of the randomisation test.
    pub p_value: f64,
    /// Number of users for whom the first is better.
    pub wins: usize,
    /// Number of users for whom the second is better.
    pub losses: usize,
}

/// Compares `first` and `second`, which have a value for each of the same users in the same order; `None` without
/// users.
///
/// # Panics
/// If the lengths differ.
pub fn compare(first: &[f64], second: &[f64], seed: u64) -> Option<Comparison> {
    assert_eq!(first.len(), second.len(), "a comparison requires the same users in both rankings");
    let differences: Vec<f64> = first.iter().zip(second).map(|(first, second)| first - second).collect();
    let difference = estimate_values(&[&differences], seed).pop()?;
    Some(Comparison {
        difference,
        p_value: p_value(&differences, seed),
        wins: differences.iter().filter(|&&difference| difference > 0.0).count(),
        losses: differences.iter().filter(|&&difference| difference < 0.0).count(),
    })
}

fn p_value(differences: &[f64], seed: u64) -> f64 {
    // Differences of zero do not depend on the sign.
    let differences: Vec<f64> = differences.iter().copied().filter(|&difference| difference != 0.0).collect();
    // Sums in another order round differently: the tolerance keeps equal sums from falling below the observed one.
    let total: f64 = differences.iter().map(|difference| difference.abs()).sum();
    let found = differences.iter().sum::<f64>().abs() - 1e-12 * total;
    let mut stream = Stream::new(seed, "randomisation test", &[differences.len() as u64]);
    let extreme = (0..DRAWS)
        .filter(|_| {
            let mut sum = 0.0;
            for chunk in differences.chunks(64) {
                let signs = stream.next_u64();
                for (index, difference) in chunk.iter().enumerate() {
                    sum += if signs >> index & 1 == 0 { *difference } else { -difference };
                }
            }
            sum.abs() >= found
        })
        .count();
    (extreme + 1) as f64 / (DRAWS + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_p_value_matches_the_sign_test_for_equal_differences() {
        // Nine of ten users improve: two-sided sign test, 2 · (1 + 10) / 2¹⁰ = 0.0215.
        let first: Vec<f64> = (0..10).map(|user| f64::from(user > 0)).collect();
        let second: Vec<f64> = (0..10).map(|user| f64::from(user == 0)).collect();
        let comparison = compare(&first, &second, 3).unwrap();
        assert!((comparison.p_value - 0.0215).abs() < 0.005, "{comparison:?}");
        assert_eq!((comparison.wins, comparison.losses), (9, 1));
        assert!((comparison.difference.mean - 0.8).abs() < 1e-12);
        assert_eq!(compare(&first, &second, 3), Some(comparison));
    }

    #[test]
    fn equal_rankings_are_insignificant_and_clear_gains_significant() {
        let values: Vec<f64> = (0..200).map(|user| f64::from(user % 3)).collect();
        let same = compare(&values, &values, 1).unwrap();
        assert!((same.p_value - 1.0).abs() < 1e-12, "{same:?}");
        let better: Vec<f64> = values.iter().map(|value| value + 0.25).collect();
        assert!(compare(&better, &values, 1).unwrap().p_value < 2e-4);
        assert_eq!(compare(&[], &[], 1), None);
    }

    #[test]
    fn p_values_are_uniform_under_the_null_hypothesis() {
        let small = (0..200)
            .filter(|&trial| {
                let mut stream = Stream::new(trial, "null", &[]);
                let mut draw = || -> Vec<f64> { (0..30).map(|_| stream.uniform()).collect() };
                let (first, second) = (draw(), draw());
                compare(&first, &second, trial).unwrap().p_value < 0.1
            })
            .count();
        // 20 ± 4.2 expected.
        assert!((8..=33).contains(&small), "{small} of 200 below 0.1");
    }
}
