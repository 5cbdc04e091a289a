//! A step's row of metrics.jsonl. Metrics with the same meaning as in TRL have TRL's names.

use std::collections::BTreeMap;

use podium_grpo::advantage::{has_zero_variance, mean, std};
use podium_grpo::{Completion, FinishReason, Group, Step};
use serde_json::{Value, json};

use crate::store::Row;

/// The coordinator's data of a step.
#[derive(Debug, Clone, Copy)]
pub struct CompletedStep<'a> {
    /// The step.
    pub step: Step,
    /// Its groups, by index.
    pub groups: &'a [Group],
    /// Diagnostics of its answers, by name: see [`podium_recsys::diagnostics`].
    pub diagnosed: &'a BTreeMap<String, f64>,
    /// Number of tokens of all earlier steps, see [`tokens`].
    pub tokens_before: u64,
    /// Seconds since the commit of the previous step.
    pub seconds: f64,
    /// The anatomy of this time, by name: see [`crate::timeline::Timeline::anatomy`].
    pub anatomy: &'a BTreeMap<String, f64>,
}

/// Returns the number of tokens of a step: each completion's own and its prompt's.
pub fn tokens(groups: &[Group]) -> u64 {
    let group = |group: &Group| {
        let completions: usize = group.completions.iter().map(Completion::len).sum();
        group.prompt_ids.len() * group.completions.len() + completions
    };
    groups.iter().map(group).sum::<usize>() as u64
}

/// Returns the row: `step` from 1, then the metrics of the coordinator and the learner, by name.
///
/// `reward_std` is the mean of the groups' standard deviations, and `num_tokens` the sum over all steps so
/// far. If both report a name, the row has the coordinator's value, which covers the whole step.
pub fn row(completed: &CompletedStep<'_>, reported: &BTreeMap<String, f64>) -> Row {
    let mut named: BTreeMap<String, f64> = reported.clone();
    named.extend(rewards(completed.groups));
    named.extend(sampling(completed.groups));
    named.extend(completions(completed));
    named.extend(completed.diagnosed.clone());
    named.insert("num_tokens".into(), (completed.tokens_before + tokens(completed.groups)) as f64);
    named.insert("step_time".into(), completed.seconds);
    named.extend(completed.anatomy.clone());
    let mut row = Row::from_iter([("step".to_owned(), json!(completed.step.0 + 1))]);
    row.extend(
        named.into_iter().filter(|(name, _)| name != "step").map(|(name, value)| (name, number(value))),
    );
    row
}

/// Adds a late report of the learner to a row that was made without it.
pub fn add_report(row: &mut Row, reported: &BTreeMap<String, f64>) {
    for (name, &value) in reported {
        row.entry(name.clone()).or_insert_with(|| number(value));
    }
}

/// Returns the numbers of a row, for status replies.
pub fn numbers(row: &Row) -> BTreeMap<String, f64> {
    row.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
}

/// Returns a value of a row; null if it is not finite.
fn number(value: f64) -> Value {
    // Integers are written without a fraction: `"num_tokens":512`.
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn rewards(groups: &[Group]) -> Vec<(String, f64)> {
    let scored = |group: &Group| group.rewards.iter().flatten().copied().collect::<Vec<f64>>();
    let zero = groups.iter().filter(|group| has_zero_variance(&group.rewards)).count();
    // A group without any score has no mean; a step of such groups has none either, and its row contains
    // null.
    let mean_of = |value: fn(std::vec::IntoIter<f64>) -> f64| {
        let mut of_groups = groups.iter().map(scored).filter(|scored| !scored.is_empty()).peekable();
        if of_groups.peek().is_none() {
            return f64::NAN;
        }
        mean(of_groups.map(|scored| value(scored.into_iter())))
    };
    let mut named = vec![
        ("reward".to_owned(), mean_of(mean)),
        ("reward_std".to_owned(), mean_of(std)),
        ("frac_reward_zero_std".to_owned(), zero as f64 / groups.len().max(1) as f64),
    ];
    let names = groups.first().map(|group| group.reward_terms.as_slice()).unwrap_or_default();
    for (index, name) in names.iter().enumerate() {
        let values =
            groups.iter().flat_map(|group| &group.term_rewards).filter_map(|terms| terms.get(index).copied());
        named.push((format!("rewards/{name}/mean"), mean(values.clone())));
        named.push((format!("rewards/{name}/std"), std(values)));
    }
    named
}

/// Returns the metrics of dynamic sampling and of the age of groups: see docs/guides/sampling.md.
fn sampling(groups: &[Group]) -> [(String, f64); 5] {
    let count = |holds: fn(&Group) -> bool| groups.iter().filter(|group| holds(group)).count() as f64;
    // Every attempt before the last one had equal rewards.
    let first = count(|group| group.id.attempt > 0 || has_zero_variance(&group.rewards));
    let lags = || groups.iter().map(|group| group.id.step.0.saturating_sub(group.policy_version.0) as f64);
    [
        ("refilled", count(|group| group.id.attempt > 0)),
        ("discarded", groups.iter().map(|group| f64::from(group.id.attempt)).sum()),
        ("frac_zero_std_first", first / groups.len().max(1) as f64),
        ("policy_lag/mean", mean(lags())),
        ("policy_lag/max", lags().fold(0.0, f64::max)),
    ]
    .map(|(name, value)| (format!("groups/{name}"), value))
}

fn completions(completed: &CompletedStep<'_>) -> Vec<(String, f64)> {
    let all = || completed.groups.iter().flat_map(|group| &group.completions);
    let lengths = || all().map(|completion| completion.len() as f64);
    let stopped = all().filter(|completion| completion.finish_reason == FinishReason::Stop);
    let clipped = all().filter(|completion| completion.finish_reason == FinishReason::Length).count();
    let share = |count: usize| count as f64 / all().count().max(1) as f64;
    [
        ("mean_length", mean(lengths())),
        ("min_length", lengths().reduce(f64::min).unwrap_or(0.0)),
        ("max_length", lengths().reduce(f64::max).unwrap_or(0.0)),
        ("clipped_ratio", share(clipped)),
        ("mean_terminated_length", mean(stopped.map(|completion| completion.len() as f64))),
    ]
    .map(|(name, value)| (format!("completions/{name}"), value))
    .into()
}

#[cfg(test)]
mod tests {
    use podium_grpo::{GroupId, PolicyVersion};

    use super::*;

    fn completion(tokens: usize, finish_reason: FinishReason) -> Completion {
        let token_ids = vec![0; tokens];
        let logprobs = vec![0.0; tokens];
        Completion {
            token_ids,
            text: String::new(),
            text_ends: vec![0; tokens],
            logprobs,
            sampled_logprobs: None,
            allowed: vec![],
            finish_reason,
        }
    }

    fn group(index: u32, rewards: [f64; 2]) -> Group {
        Group {
            id: GroupId { step: Step(3), index, attempt: 2 * index },
            policy_version: PolicyVersion(3 - u64::from(index)),
            prompt_ids: vec![1, 2, 3],
            completions: vec![completion(2, FinishReason::Stop), completion(6, FinishReason::Length)],
            reward_terms: vec!["form".into()],
            term_rewards: rewards.iter().map(|reward| vec![reward * 2.0]).collect(),
            rewards: rewards.map(Some).into(),
            rank_credits: vec![],
        }
    }

    #[test]
    fn a_row_contains_the_metrics_of_both_sides() {
        let groups = [group(0, [0.0, 1.0]), group(1, [1.0, 1.0])];
        let diagnosed = BTreeMap::from([("completions/well_formed".to_owned(), 0.75)]);
        let (groups, diagnosed) = (&groups, &diagnosed);
        let anatomy = &BTreeMap::from([("time/update".to_owned(), 0.5)]);
        let completed =
            CompletedStep { step: Step(3), groups, diagnosed, tokens_before: 100, seconds: 1.5, anatomy };
        let reported = BTreeMap::from([("kl".to_owned(), 0.25), ("step".to_owned(), 9.0)]);
        let mut row = row(&completed, &reported);
        let get = |name: &str| row[name].as_f64().unwrap();
        assert_eq!(row.keys().next().unwrap(), "step");
        assert_eq!((get("step"), get("kl"), get("num_tokens")), (4.0, 0.25, 128.0));
        assert_eq!((get("reward"), get("frac_reward_zero_std")), (0.75, 0.5));
        assert!((get("reward_std") - 0.5_f64.sqrt() / 2.0).abs() < 1e-12);
        assert_eq!((get("rewards/form/mean"), get("completions/well_formed")), (1.5, 0.75));
        assert_eq!((get("completions/mean_length"), get("completions/mean_terminated_length")), (4.0, 2.0));
        assert_eq!((get("completions/min_length"), get("completions/max_length")), (2.0, 6.0));
        assert_eq!((get("completions/clipped_ratio"), get("step_time")), (0.5, 1.5));
        assert_eq!(row["time/update"].as_f64(), Some(0.5));
        assert_eq!((get("groups/refilled"), get("groups/discarded")), (1.0, 2.0));
        assert_eq!((get("groups/frac_zero_std_first"), get("frac_reward_zero_std")), (0.5, 0.5));
        assert_eq!((get("groups/policy_lag/mean"), get("groups/policy_lag/max")), (0.5, 1.0));
        let unscored = |index| Group { rewards: vec![None, None], ..group(index, [0.0, 0.0]) };
        let partly = [group(0, [0.0, 1.0]), unscored(1)];
        let partly = super::row(&CompletedStep { groups: &partly, ..completed }, &reported);
        assert_eq!(partly["reward"].as_f64(), Some(0.5), "only what was scored counts");
        let nothing = [unscored(0), unscored(1)];
        let nothing = super::row(&CompletedStep { groups: &nothing, ..completed }, &reported);
        assert!(nothing["reward"].is_null() && nothing["reward_std"].is_null());
        assert!(!numbers(&nothing).contains_key("reward"));
        add_report(&mut row, &BTreeMap::from([("loss".to_owned(), 0.5), ("reward".to_owned(), 7.0)]));
        assert_eq!((row["loss"].as_f64(), row["reward"].as_f64()), (Some(0.5), Some(0.75)));
    }
}
