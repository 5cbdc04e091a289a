//! The row of an evaluation: ranking metrics over held-out users with 95 % intervals.

use std::collections::BTreeMap;

use podium_grpo::PolicyVersion;
use podium_proto::v1;
use podium_recsys::ranking::Metric;
use serde_json::{Map, Value, json};

use super::answers::Answered;
use super::estimates::{Estimates, Ranked, Ranks, estimates};
use super::likelihood;
use super::parts::Part;
use crate::store::Row;

/// Returns the metrics of a run whose answers list this number of items: HR@1, HR@K, NDCG@K and MRR.
pub fn metrics(list_length: usize) -> Vec<Metric> {
    let mut metrics =
        vec![Metric::Hit(1), Metric::Hit(list_length), Metric::Ndcg(list_length), Metric::ReciprocalRank];
    metrics.dedup();
    metrics
}

/// Returns the rank of each answer's target; `None` if it is not listed or the answer is malformed.
pub fn ranks(answers: &[Answered]) -> Ranks {
    answers.iter().map(|answered| answered.grade.outcome.scored_rank()).collect()
}

/// The ranks under version 0.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Ranks in the generated rankings.
    pub ranks: &'a [Option<usize>],
    /// Ranks in the rankings by likelihood, if there are any.
    pub likelihood_ranks: Option<&'a [Option<usize>]>,
}

/// Returns the row of evaluations.jsonl: metrics of all users and of `parts`, then those of the rankings by
/// likelihood. `start` is the evaluation of version 0, for the paired differences.
pub fn row(
    version: PolicyVersion,
    answers: &[Answered],
    start: Option<Start<'_>>,
    metrics: &[Metric],
    parts: &[Part],
    seed: u64,
) -> Row {
    let ranks = ranks(answers);
    let start = start.filter(|_| version != PolicyVersion::START);
    let start_ranks = start.map(|start| start.ranks).filter(|start| start.len() == ranks.len());
    let ranked = |prefix: String, ranks: Ranks, start: Option<Ranks>| Ranked {
        prefix,
        metrics: metrics.to_vec(),
        ranks,
        start,
    };
    let generated = ranked(String::new(), ranks.clone(), start_ranks.map(<[_]>::to_vec));
    let likelihood = likelihood::ranked(answers, start.and_then(|start| start.likelihood_ranks));
    let all: Vec<Ranked> = [generated].into_iter().chain(likelihood).collect();
    let mut of_all = estimates(&all, seed).into_iter();
    let (generated, likelihood) = (of_all.next().unwrap_or_default(), of_all.next().unwrap_or_default());
    let of_part = |part: &Part| {
        let ranked = ranked(part.prefix(), part.of(&ranks), start_ranks.map(|start| part.of(start)));
        let users = (part.users_key(), json!(ranked.ranks.len()));
        (users, estimates(&[ranked], seed).pop().unwrap_or_default())
    };
    let of_parts: Vec<((String, Value), Estimates)> = parts.iter().map(of_part).collect();

    let mut row = Row::new();
    row.insert("policy_version".into(), json!(version.0));
    row.insert("step".into(), json!(version.0));
    row.insert("users".into(), json!(ranks.len()));
    row.extend(generated.values);
    let mut changes: Map<String, Value> = generated.changes.into_iter().collect();
    for (users, Estimates { values, changes: of_part }) in of_parts {
        row.extend([users]);
        row.extend(values);
        changes.extend(of_part);
    }
    let share = |count: usize| count as f64 / answers.len().max(1) as f64;
    let average =
        |value: fn(&Answered) -> f64| answers.iter().map(value).sum::<f64>() / answers.len().max(1) as f64;
    row.insert("reward".into(), json!(average(|a| a.grade.score.total)));
    row.insert("mean_length".into(), json!(average(|a| a.answer.token_ids.len() as f64)));
    let truncated = |a: &&Answered| a.answer.finish_reason() == v1::FinishReason::Length;
    row.insert("clipped_ratio".into(), json!(share(answers.iter().filter(truncated).count())));
    changes.extend(likelihood.changes);
    row.insert("change_from_start".into(), json!(start_ranks.map(|_| changes)));
    row.extend(likelihood.values);
    row
}

/// Returns the metrics of a row as numbers, for status replies: `HR@1`, `HR@1/low`, `HR@1/high`, …
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
