//! Whether one ranking is better than another: a paired randomisation test.
//!
//! If two rankers were equally good, each user's difference might as well have the other sign. The test draws signs anew
//! 10,000 times; the p-value is the share of draws whose mean difference is at least as far from 0 as the one that was
//! found, the latter counted among the draws (Fisher 1935; Smucker, Allan & Carterette 2007 for retrieval). It is
//! two-sided, and the draws are named by a seed.

use podium_grpo::rng::Stream;
use serde::{Deserialize, Serialize};

use super::estimate::{Estimate, estimate_values};

/// How often signs are drawn.
const DRAWS: usize = 10_000;

/// What two rankers made of the same users.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The mean difference over users, the first less the second, with its 95 % interval.
    pub difference: Estimate,
    /// The two-sided p-value of the randomisation test.
    pub p_value: f64,
    /// Users to whom the first is better.
    pub wins: usize,
    /// Users to whom the second is better.
    pub losses: usize,
}

/// Compares `first` and `second`, which hold a value for each of the same users in the same order; `None` without users.
///
/// # Panics
/// If the two are not of the same length.
pub fn compare(first: &[f64], second: &[f64], seed: u64) -> Option<Comparison> {
    assert_eq!(first.len(), second.len(), "a comparison needs the same users in both rankings");
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
    // A user without a difference has none whatever the sign.
    let differences: Vec<f64> = differences.iter().copied().filter(|&difference| difference != 0.0).collect();
    // Sums in another order round differently: what equals the sum that was found must not fall below it.
    let total: f64 = differences.iter().map(|difference| difference.abs()).sum();
    let found = differences.iter().sum::<f64>().abs() - 1e-12 * total;
    let mut stream = Stream::new(seed, "randomisation test", &[differences.len() as u64]);
    let extreme = (0..DRAWS)
        .filter(|_| {
            let mut sum = 0.0;
            for chunk in differences.chunks(64) {
                let signs = stream.next_u64();
                for (place, difference) in chunk.iter().enumerate() {
                    sum += if signs >> place & 1 == 0 { *difference } else { -difference };
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
    fn the_p_value_is_that_of_the_sign_test_where_differences_are_equal() {
        // Nine of ten users gain: two-sided sign test, 2 · (1 + 10) / 2¹⁰ = 0.0215.
        let first: Vec<f64> = (0..10).map(|user| f64::from(user > 0)).collect();
        let second: Vec<f64> = (0..10).map(|user| f64::from(user == 0)).collect();
        let comparison = compare(&first, &second, 3).unwrap();
        assert!((comparison.p_value - 0.0215).abs() < 0.005, "{comparison:?}");
        assert_eq!((comparison.wins, comparison.losses), (9, 1));
        assert!((comparison.difference.mean - 0.8).abs() < 1e-12);
        assert_eq!(compare(&first, &second, 3), Some(comparison));
    }

    #[test]
    fn equal_rankings_do_not_differ_and_clear_gains_do() {
        let values: Vec<f64> = (0..200).map(|user| f64::from(user % 3)).collect();
        let same = compare(&values, &values, 1).unwrap();
        assert!((same.p_value - 1.0).abs() < 1e-12, "{same:?}");
        let better: Vec<f64> = values.iter().map(|value| value + 0.25).collect();
        assert!(compare(&better, &values, 1).unwrap().p_value < 2e-4);
        assert_eq!(compare(&[], &[], 1), None);
    }

    #[test]
    fn p_values_are_uniform_where_nothing_differs() {
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
