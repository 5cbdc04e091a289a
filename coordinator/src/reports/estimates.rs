//! Metrics over users with 95 % intervals, as values of report rows.

use podium_recsys::ranking::{self, Estimate, Metric};
use serde_json::{Value, json};

/// The ranks of one set of users under an evaluated version, and the metrics to estimate from them.
#[derive(Debug)]
pub struct Ranked {
    /// Prefix of the names of the metrics: empty, `warm/`, `likelihood/`, …
    pub prefix: String,
    /// The metrics to estimate.
    pub metrics: Vec<Metric>,
    /// The rank of each user's target.
    pub ranks: Ranks,
    /// The ranks of the same users under version 0, for the paired differences.
    pub start: Option<Ranks>,
}

/// Rank of each user's target; `None` if it is not listed.
pub type Ranks = Vec<Option<usize>>;

/// Means with intervals by the metric's name.
#[derive(Debug, Default)]
pub struct Estimates {
    /// The means over the users.
    pub values: Vec<(String, Value)>,
    /// The paired differences from version 0.
    pub changes: Vec<(String, Value)>,
}

/// Estimates every metric of these rankings of the same users from one bootstrap. The resamples depend only
/// on the seed and the number of users, so each interval equals that of a separate estimate.
pub fn estimates(rankings: &[Ranked], seed: u64) -> Vec<Estimates> {
    let measures = |Ranked { metrics, ranks, start, .. }: &Ranked| {
        let values = metrics.iter().map(|metric| metric.values(ranks));
        let changes = start.iter().flat_map(|start| {
            metrics.iter().map(|metric| ranking::paired_differences(*metric, ranks, start))
        });
        values.chain(changes).collect::<Vec<_>>()
    };
    let measures: Vec<Vec<f64>> = rankings.iter().flat_map(measures).collect();
    let mut estimates = ranking::estimate_values(&measures, seed).into_iter();
    let mut named = |Ranked { prefix, metrics, .. }: &Ranked| -> Vec<(String, Value)> {
        metrics.iter().map(|metric| (format!("{prefix}{metric}"), interval(estimates.next()))).collect()
    };
    let of = |ranked: &Ranked| {
        let values = named(ranked);
        let changes = if ranked.start.is_some() { named(ranked) } else { Vec::new() };
        Estimates { values, changes }
    };
    rankings.iter().map(of).collect()
}

fn interval(estimate: Option<Estimate>) -> Value {
    estimate.map_or(
        Value::Null,
        |Estimate { mean, low, high, .. }| json!({"mean": mean, "low": low, "high": high}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_get_the_intervals_together_that_they_get_alone() {
        let ranks = |step: usize| -> Ranks { (0..50).map(|user| Some(1 + user * step % 7)).collect() };
        let ranked = |prefix: &str, metrics: &[Metric], step, start: Option<usize>| Ranked {
            prefix: prefix.to_owned(),
            metrics: metrics.to_vec(),
            ranks: ranks(step),
            start: start.map(ranks),
        };
        let both = [Metric::Hit(1), Metric::Ndcg(3)];
        let all = [ranked("", &both, 3, Some(2)), ranked("likelihood/", &[Metric::ReciprocalRank], 5, None)];
        let together = estimates(&all, 9);
        let names: Vec<&str> = together[1].values.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, together[1].changes.len()), (vec!["likelihood/MRR"], 0));
        for (index, metric) in both.into_iter().enumerate() {
            let alone = &estimates(&[ranked("", &[metric], 3, Some(2))], 9)[0];
            assert_eq!(alone.values[0], together[0].values[index]);
            assert_eq!(alone.changes[0], together[0].changes[index]);
            assert_ne!(alone.changes[0], alone.values[0]);
        }
        let no_users = Ranked { ranks: vec![], ..ranked("", &both, 1, None) };
        assert_eq!(estimates(&[no_users], 9)[0].values[1], ("NDCG@3".to_owned(), Value::Null));
    }
}
