//! Means over users with 95 % intervals.
//!
//! Intervals are percentile bootstrap intervals (Efron 1979): users are resampled with replacement 2,000 times, and the
//! interval contains the middle 95 % of the means. The resamples are determined by a seed, so that results are
//! reproducible. If all users have the same value, the interval is a point, which does not generalise to other users.

use podium_grpo::rng::Stream;
use serde::{Deserialize, Serialize};

use super::Metric;

/// Number of resamples.
const RESAMPLES: usize = 2_000;

/// A mean over users and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Lower limit of the interval.
    pub low: f64,
    /// Upper limit of the interval.
    pub high: f64,
    /// Number of users.
    pub count: usize,
}

/// Returns the difference of `metric` between `after` and `before` for each user; both have the ranks of the same users
/// in the same order.
///
/// # Panics
/// If the lengths differ.
pub fn paired_differences(metric: Metric, after: &[Option<usize>], before: &[Option<usize>]) -> Vec<f64> {
    assert_eq!(after.len(), before.len(), "a paired difference requires the same users in both rankings");
    after.iter().zip(before).map(|(&after, &before)| metric.value(after) - metric.value(before)).collect()
}

/// Returns the mean of each measure over the same users with its interval; empty without users. All measures share the
/// resamples, so that many measures cost little more than one, and each estimate equals that of the measure alone.
///
/// # Panics
/// If the measures have different numbers of users.
pub fn estimate_values<V: AsRef<[f64]>>(measures: &[V], seed: u64) -> Vec<Estimate> {
    let measures: Vec<&[f64]> = measures.iter().map(AsRef::as_ref).collect();
    let count = measures.first().map_or(0, |values| values.len());
    assert!(measures.iter().all(|values| values.len() == count), "all measures have the same users");
    if count == 0 {
        return Vec::new();
    }
    let mut stream = Stream::new(seed, "bootstrap", &[count as u64]);
    let mut means = vec![Vec::with_capacity(RESAMPLES); measures.len()];
    let mut users = vec![0; count];
    for _ in 0..RESAMPLES {
        users.fill_with(|| stream.below(count as u64) as usize);
        for (means, values) in means.iter_mut().zip(&measures) {
            means.push(users.iter().map(|&user| values[user]).sum::<f64>() / count as f64);
        }
    }
    let tail = RESAMPLES / 40;
    means
        .iter_mut()
        .zip(&measures)
        .map(|(means, values)| {
            means.sort_by(f64::total_cmp);
            let mean = values.iter().sum::<f64>() / count as f64;
            Estimate { mean, low: means[tail], high: means[RESAMPLES - 1 - tail], count }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(hits: usize, users: usize) -> Vec<Option<usize>> {
        (0..users).map(|user| (user < hits).then_some(1)).collect()
    }

    fn estimate(values: &[f64], seed: u64) -> Option<Estimate> {
        estimate_values(&[values], seed).pop()
    }

    #[test]
    fn the_interval_matches_the_binomial() {
        let estimate = estimate(&Metric::Hit(1).values(&ranks(180, 600)), 1).unwrap();
        assert!((estimate.mean - 0.3).abs() < 1e-12);
        // 1.96 · √(0.3 · 0.7 / 600) = 0.0367
        assert!((estimate.high - estimate.mean - 0.0367).abs() < 0.005, "{estimate:?}");
        assert!((estimate.mean - estimate.low - 0.0367).abs() < 0.005, "{estimate:?}");
    }

    #[test]
    fn estimates_are_reproducible() {
        let values = Metric::Ndcg(3).values(&ranks(5, 30));
        assert_eq!(estimate(&values, 3).unwrap(), estimate(&values, 3).unwrap());
        assert_eq!(estimate(&[], 3), None);
    }

    #[test]
    fn joint_estimates_equal_separate_ones() {
        let (hits, misses): (Vec<f64>, Vec<f64>) =
            (0..40).map(|user| (f64::from(user % 3), f64::from(user % 5))).unzip();
        let together = estimate_values(&[&hits, &misses], 9);
        let alone = [&hits, &misses].map(|values| estimate_values(&[values], 9)[0]);
        assert_eq!(together, alone);
        assert!(estimate_values::<&[f64]>(&[&[]], 9).is_empty());
    }

    #[test]
    fn a_paired_difference_is_narrower_than_two_intervals() {
        let before: Vec<Option<usize>> = (0..400).map(|user| (user % 2 == 0).then_some(1)).collect();
        let after: Vec<Option<usize>> =
            (0..400).map(|user| (user % 2 == 0 || user % 20 == 1).then_some(1)).collect();
        let gain = estimate(&paired_differences(Metric::Hit(1), &after, &before), 0).unwrap();
        assert!((gain.mean - 0.05).abs() < 1e-12);
        assert!(gain.low > 0.02 && gain.high < 0.08, "{gain:?}");
    }
}
