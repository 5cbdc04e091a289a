//! Metrics of the groups themselves in rows of `metrics.jsonl`, under TRL's names.

use podium_grpo::advantage::{mean, std};
use podium_grpo::{Completion, FinishReason};
use serde_json::json;

use crate::batch::Share;
use crate::update::Metrics;

/// Metrics of a step's groups. `tokens`: prompt and completion tokens of earlier steps; this step's are added.
pub(super) fn of(share: &Share, tokens: &mut u64) -> Metrics {
    let completions = || share.groups.iter().flat_map(|group| &group.completions);
    let lengths = || completions().map(|completion| completion.len() as f64);
    let cut = |completion: &&Completion| completion.finish_reason == FinishReason::Length;
    let terminated =
        || completions().filter(|completion| !cut(completion)).map(|completion| completion.len() as f64);
    let rewards = || share.groups.iter().flat_map(|group| &group.rewards).flatten().copied();
    // The mean of an empty list is undefined: the row has null, where TRL has NaN.
    let of_rewards = |value: f64| if rewards().next().is_some() { value } else { f64::NAN };
    *tokens += share.tokens_in_step;
    *tokens += share
        .groups
        .iter()
        .map(|group| (group.prompt_ids.len() * group.completions.len()) as u64)
        .sum::<u64>();
    let count = completions().count().max(1) as f64;
    [
        ("reward", of_rewards(mean(rewards()))),
        ("reward_std", of_rewards(std(rewards().collect::<Vec<_>>().into_iter()))),
        ("completions/mean_length", mean(lengths())),
        ("completions/min_length", lengths().reduce(f64::min).unwrap_or(0.0)),
        ("completions/max_length", lengths().reduce(f64::max).unwrap_or(0.0)),
        ("completions/clipped_ratio", completions().filter(cut).count() as f64 / count),
        ("completions/mean_terminated_length", mean(terminated())),
        ("completions/min_terminated_length", terminated().reduce(f64::min).unwrap_or(0.0)),
        ("completions/max_terminated_length", terminated().reduce(f64::max).unwrap_or(0.0)),
        ("num_tokens", *tokens as f64),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The metrics of a pass: those of its groups, and its own.
pub(super) fn row(groups: &Metrics, mut pass: Metrics) -> Metrics {
    if let Some(seconds) = pass.remove("learner_seconds") {
        pass.insert("step_time".to_owned(), seconds);
    }
    pass.extend(groups.iter().map(|(name, value)| (name.clone(), *value)));
    pass
}

/// Returns the JSON line of the optimizer's step `number`, counted from 1, with null for NaN and infinity.
pub(super) fn line(number: u64, row: &Metrics) -> String {
    let mut line = serde_json::Map::from_iter([("step".to_owned(), json!(number))]);
    line.extend(row.iter().map(|(name, value)| (name.clone(), json!(value))));
    serde_json::Value::Object(line).to_string() + "\n"
}
