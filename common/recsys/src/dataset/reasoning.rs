//! `<name>_reasoning.json`: reasoning about a training user's taste, imitated in fine-tuning.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::rows::{Error, Location, Problem, Report, RowPolicy, Rows, excerpt};
use super::texts;
use crate::ids::UserId;

/// Reads the reasoning of `training_users`; reasoning of other users is counted and discarded unread.
///
/// Rows are matched by `user_id`; `line_idx` is ignored, since line numbers change when users are filtered.
pub(super) fn read(
    file: &Path,
    training_users: &BTreeSet<UserId>,
    policy: RowPolicy,
    report: &mut Report,
) -> Result<BTreeMap<UserId, String>, Error> {
    const EXPECTED: &str = "an array [{\"user_id\": …, \"reasoning\": …}, …]";
    let entries: Vec<Value> = texts::json(file, EXPECTED)?;
    let mut rows = Rows { file, policy, report };
    let mut reasoning = BTreeMap::new();
    for (number, entry) in (1..).zip(&entries) {
        let location = Location::Entry(number);
        let Some(user) = rows.keep(location, user(entry))? else { continue };
        if !training_users.contains(&user) {
            rows.report.reasoning_not_of_training_users += 1;
            continue;
        }
        let Some(text) = rows.keep(location, text(entry))? else { continue };
        match reasoning.entry(user) {
            Entry::Vacant(free) => {
                free.insert(text.to_owned());
            }
            Entry::Occupied(_) => rows.bad(location, Problem::RepeatedUser(user))?,
        }
    }
    Ok(reasoning)
}

fn user(entry: &Value) -> Result<UserId, Problem> {
    let field = entry.get("user_id");
    match field {
        Some(Value::Number(number)) => number.as_u64().map(UserId),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    }
    .ok_or_else(|| Problem::UserId(excerpt(&field.map(ToString::to_string).unwrap_or_default())))
}

/// Returns the text of an entry. An empty text is a failed generation and is rejected.
fn text(entry: &Value) -> Result<&str, Problem> {
    let text = entry.get("reasoning").and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if text.is_empty() {
        Err(Problem::NoText("reasoning"))
    } else if ["<think>", "</think>"].iter().any(|tag| text.contains(tag)) {
        Err(Problem::ThinkTag)
    } else {
        Ok(text)
    }
}
