//! One metric of an evaluation: a row of metrics.csv, and the input of tables and charts.

use podium_recsys::ranking::{Comparison, Estimate, Metric};
use serde::Serialize;

use crate::lists::Lists;
use crate::ranked::Ranking;

/// The slice of a metric over all users.
pub(crate) const ALL: &str = "all";

/// An estimate with its description.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricValue {
    /// The policy or baseline.
    pub policy: String,
    /// The subtracted policy or baseline, for a paired difference.
    pub against: Option<String>,
    /// The candidate lists: their number of negatives, or the whole catalogue.
    pub negatives: Lists,
    /// How the ranking was produced.
    pub ranking: Ranking,
    /// The slice of users.
    pub slice: String,
    /// Name of the metric without its cutoff: `HR`, `NDCG`, `MRR`, or another one of docs/guides/evaluation.md.
    pub metric: String,
    /// Cutoff of a metric, or the position of a fraction of positions.
    pub k: Option<usize>,
    /// Mean over users.
    pub estimate: f64,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval.
    pub high: Option<f64>,
    /// Number of users.
    pub n: usize,
    /// Two-sided p-value of a comparison.
    pub p_value: Option<f64>,
}

impl MetricValue {
    /// Creates an estimate over all users.
    pub(crate) fn new(
        (policy, ranking): (&str, Ranking),
        negatives: Lists,
        metric: &str,
        k: Option<usize>,
        Estimate { mean, low, high, count }: Estimate,
    ) -> Self {
        Self {
            policy: policy.to_owned(),
            against: None,
            negatives,
            ranking,
            slice: ALL.to_owned(),
            metric: metric.to_owned(),
            k,
            estimate: mean,
            low: Some(low),
            high: Some(high),
            n: count,
            p_value: None,
        }
    }

    /// Converts the estimate to a difference from `against`.
    pub(crate) fn compared(self, against: &str, comparison: &Comparison) -> Self {
        Self { against: Some(against.to_owned()), p_value: Some(comparison.p_value), ..self }
    }

    /// Removes the interval.
    pub(crate) fn plain(self) -> Self {
        Self { low: None, high: None, ..self }
    }

    /// "HR@3", "MRR"
    pub fn name(&self) -> String {
        self.k.map_or_else(|| self.metric.clone(), |k| format!("{}@{k}", self.metric))
    }

    /// Formats the estimate as "0.412 [0.371, 0.452]", with the interval if it has one.
    pub fn text(&self) -> String {
        let sign =
            |value: f64| if self.against.is_some() { format!("{value:+.3}") } else { format!("{value:.3}") };
        match (self.low, self.high) {
            (Some(low), Some(high)) => format!("{} [{}, {}]", sign(self.estimate), sign(low), sign(high)),
            _ => sign(self.estimate),
        }
    }
}

/// A metric as name and cutoff.
pub(crate) fn name_and_cut(metric: Metric) -> (&'static str, Option<usize>) {
    match metric {
        Metric::Hit(k) => ("HR", Some(k)),
        Metric::Ndcg(k) => ("NDCG", Some(k)),
        Metric::ReciprocalRankAt(k) => ("MRR", Some(k)),
        Metric::ReciprocalRank => ("MRR", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_formatted_with_its_interval() {
        for metric in [Metric::Hit(3), Metric::Ndcg(5), Metric::ReciprocalRankAt(5), Metric::ReciprocalRank] {
            let (name, k) = name_and_cut(metric);
            let estimate = Estimate { mean: 0.25, low: 0.125, high: 0.5, count: 9 };
            let value = MetricValue::new(("p", Ranking::Generated), Lists::Sampled(9), name, k, estimate);
            assert_eq!(value.name(), metric.to_string());
            assert_eq!(value.text(), "0.250 [0.125, 0.500]");
            assert_eq!(value.clone().plain().text(), "0.250");
            let comparison = Comparison { difference: estimate, p_value: 0.5, wins: 1, losses: 2 };
            assert_eq!(value.compared("q", &comparison).text(), "+0.250 [+0.125, +0.500]");
        }
    }
}
