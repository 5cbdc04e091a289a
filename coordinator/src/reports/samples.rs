//! Rows of samples.jsonl: a few prompts with all their completions, for users to read.

use podium_grpo::PolicyVersion;
use podium_proto::convert::Slot;
use podium_proto::v1;
use podium_recsys::ItemId;
use podium_recsys::task::{Case, Grade, Task};
use serde_json::{Map, Value, json};

use crate::store::Row;

/// Number of recorded cases of a step, and of an evaluation.
pub const KEPT: usize = 8;

/// Number of training steps between steps with recorded cases.
const EVERY_STEPS: u64 = 10;

/// Returns whether cases of a training step are recorded.
pub const fn keeps_step(step: u64, steps: u64) -> bool {
    step.is_multiple_of(EVERY_STEPS) || step + 1 == steps
}

/// Returns the row of one prompt and the completions that a policy version sampled for it, with their grades.
pub fn row(
    task: &Task,
    slot: Slot,
    version: PolicyVersion,
    case: &Case,
    completions: &[v1::Completion],
    grades: &[Grade],
) -> Row {
    let (purpose, step, index, attempt) = match slot {
        Slot::Training(id) => ("training", id.step.0, id.index, id.attempt),
        Slot::Evaluation { version, index } => ("evaluation", version.0, index, 0),
    };
    let item = |id: &ItemId| {
        let item = task.dataset().catalogue.get(*id);
        let (title, caption) = (item.map(|item| &item.title), item.and_then(|item| item.caption.as_ref()));
        json!({"id": id.0, "title": title, "caption": caption})
    };
    let items = |ids: &[ItemId]| ids.iter().map(item).collect::<Vec<Value>>();
    let graded = completions.iter().zip(grades).map(|(one, grade)| completion(task, one, grade));
    let value = json!({
        "purpose": purpose,
        "policy_version": version.0,
        "step": step,
        "index": index,
        "attempt": attempt,
        "user": case.user.0.to_string(),
        "system": case.prompt.system,
        "prompt": case.prompt.user,
        "thinking_start": case.thinking_start.name(),
        "history": items(&case.history),
        "candidates": items(&case.candidates),
        "target": case.target.0,
        "completions": graded.collect::<Vec<Value>>(),
    });
    match value {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}

fn completion(task: &Task, completion: &v1::Completion, grade: &Grade) -> Value {
    let terms: Map<String, Value> = task
        .rewards()
        .names()
        .iter()
        .cloned()
        .zip(grade.score.parts.iter().map(|part| json!(part)))
        .collect();
    json!({
        "text": completion.text,
        "reward": grade.score.total,
        "terms": terms,
        "form": grade.outcome.form.name(),
        "rank": grade.outcome.scored_rank(),
        "ranking": grade.ranking,
        "tokens": completion.token_ids.len(),
    })
}
