//! Reasoning files in the format of the data folder: `[{"user_id": …, "reasoning": …}, …]`.

use std::collections::BTreeMap;
use std::path::Path;

use podium_files::durable;
use podium_recsys::dataset::{Error, RowPolicy};
use podium_recsys::{Dataset, User, UserId};
use serde_json::{Value, json};

use super::history::Modality;

/// Suffix of the file of rewritten reasoning.
pub(crate) const REFINED: &str = "reasoning_refined.json";

/// Returns the suffix of the file of reasoning from `modality`.
pub(crate) fn ending(modality: Modality) -> String {
    format!("reasoning_{modality}.json")
}

/// Reads the reasoning of training users from a file. Reasoning of other users is discarded; unreadable rows are
/// skipped and logged.
pub(crate) fn read(path: &Path, dataset: &Dataset) -> Result<BTreeMap<UserId, String>, Error> {
    let (reasoning, report) = dataset.read_reasoning(path, RowPolicy::Skip)?;
    if report.reasoning_not_of_training_users > 0 {
        tracing::warn!(
            "{}: {} rows are not about training users and were not read",
            path.display(),
            report.reasoning_not_of_training_users
        );
    }
    for (rows, skipped) in &report.skipped {
        tracing::warn!("{rows}: {} rows skipped", skipped.count);
    }
    Ok(reasoning)
}

/// Writes the reasoning of `users` for whom there is a text. For users without a new text the existing one is
/// preserved.
pub(super) fn write(
    path: &Path,
    dataset: &Dataset,
    users: &[&User],
    texts: Vec<Option<String>>,
) -> anyhow::Result<bool> {
    let mut old = if texts.contains(&None) && path.exists() { read(path, dataset)? } else { BTreeMap::new() };
    let rows = users.iter().zip(texts).filter_map(|(user, text)| {
        let text = text.or_else(|| old.remove(&user.id))?;
        Some(json!({ "user_id": user.id, "reasoning": text }))
    });
    durable::write(path, format!("{:#}\n", Value::Array(rows.collect())).as_bytes())?;
    Ok(true)
}
