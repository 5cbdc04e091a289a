//! What an evaluation found: ranking metrics over held-out users with 95 % intervals.

use std::collections::BTreeMap;

use podium_grpo::PolicyVersion;
use podium_proto::v1;
use podium_recsys::ranking::{self, Estimate, Metric};
use podium_recsys::task::Case;
use serde_json::{Map, Value, json};

use crate::grading::Reading;
use crate::reports::parts::Part;
use crate::store::Row;

/// The metrics of a run whose answers list so many items: HR@1, HR@K, NDCG@K and MRR.
pub fn metrics(list_length: usize) -> Vec<Metric> {
    let mut metrics =
        vec![Metric::Hit(1), Metric::Hit(list_length), Metric::Ndcg(list_length), Metric::ReciprocalRank];
    metrics.dedup();
    metrics
}

/// One held-out user's answer, read.
#[derive(Debug)]
pub struct Answered {
    /// The question.
    pub case: Case,
    /// The answer as it came.
    pub answer: v1::Completion,
    /// What it says and earns.
    pub reading: Reading,
}

/// Where each answer ranks its target; `None` where it does not, or is malformed.
pub fn ranks(answers: &[Answered]) -> Vec<Option<usize>> {
    answers.iter().map(|answered| answered.reading.grade.outcome.scored_rank()).collect()
}

/// The row of evaluations.jsonl, with the metrics of `parts` beside those of all. `start` holds the ranks under version 0,
/// for the paired difference.
pub fn row(
    version: PolicyVersion,
    answers: &[Answered],
    start: Option<&[Option<usize>]>,
    metrics: &[Metric],
    parts: &[Part],
    seed: u64,
) -> Row {
    let ranks = ranks(answers);
    let mut row = Row::new();
    row.insert("policy_version".into(), json!(version.0));
    row.insert("step".into(), json!(version.0));
    row.insert("users".into(), json!(ranks.len()));
    for metric in metrics {
        row.insert(metric.to_string(), interval(ranking::estimate(*metric, &ranks, seed)));
    }
    for part in parts {
        let ranks = part.of(&ranks);
        row.insert(part.users_key(), json!(ranks.len()));
        let named =
            |metric: &Metric| (part.named(*metric), interval(ranking::estimate(*metric, &ranks, seed)));
        row.extend(metrics.iter().map(named));
    }
    let share = |count: usize| count as f64 / answers.len().max(1) as f64;
    let average =
        |value: fn(&Answered) -> f64| answers.iter().map(value).sum::<f64>() / answers.len().max(1) as f64;
    row.insert("reward".into(), json!(average(|a| a.reading.grade.score.total)));
    row.insert("mean_length".into(), json!(average(|a| a.answer.token_ids.len() as f64)));
    let truncated = |a: &&Answered| a.answer.finish_reason() == v1::FinishReason::Length;
    row.insert("clipped_ratio".into(), json!(share(answers.iter().filter(truncated).count())));
    let change =
        start.filter(|start| version != PolicyVersion::START && start.len() == ranks.len()).map(|start| {
            let difference = |metric: Metric, ranks: &[_], start: &[_]| {
                interval(ranking::paired_difference(metric, ranks, start, seed))
            };
            let of_all =
                metrics.iter().map(|&metric| (metric.to_string(), difference(metric, &ranks, start)));
            let of_parts = parts.iter().flat_map(|part| {
                let (ranks, start) = (part.of(&ranks), part.of(start));
                metrics.iter().map(move |&metric| (part.named(metric), difference(metric, &ranks, &start)))
            });
            of_all.chain(of_parts).collect::<Map<_, _>>()
        });
    row.insert("change_from_start".into(), json!(change));
    row
}

/// The figures of a row as numbers, for status answers: `HR@1`, `HR@1/low`, `HR@1/high`, …
pub fn numbers(row: &Row) -> BTreeMap<String, f64> {
    let mut numbers = BTreeMap::new();
    for (name, value) in row {
        if let Some(number) = value.as_f64() {
            numbers.insert(name.clone(), number);
        } else if let Some(mean) = value.get("mean").and_then(Value::as_f64) {
            numbers.insert(name.clone(), mean);
            for end in ["low", "high"] {
                numbers.extend(
                    value.get(end).and_then(Value::as_f64).map(|number| (format!("{name}/{end}"), number)),
                );
            }
        }
    }
    numbers
}

pub(super) fn interval(estimate: Option<Estimate>) -> Value {
    estimate.map_or(
        Value::Null,
        |Estimate { mean, low, high, .. }| json!({"mean": mean, "low": low, "high": high}),
    )
}
