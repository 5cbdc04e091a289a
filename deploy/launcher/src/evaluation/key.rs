//! What answers depend on, and the names that are made of it.
//!
//! A setting that nothing is known of counts as one that matters: whoever adds a key to the run file need not think of
//! this list, and a result is rather computed twice than taken for another.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use podium_config::RunFile;
use podium_runtime::durable::{self, hex};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Error;

/// Sections that greedy or sampled held-out answers do not depend on.
const SECTIONS: [&str; 8] =
    ["grpo", "learner", "sft", "demonstration", "watch", "reward", "network", "launch"];
/// Single keys likewise. What lies in a folder is named by its content, and not by its place.
const KEYS: [(&str, &str); 18] = [
    ("run", "name"),
    ("run", "steps"),
    ("run", "stages"),
    ("run", "record_groups"),
    ("data", "dir"),
    ("data", "training_targets"),
    ("model", "path"),
    ("lora", "adapter"),
    ("rollout", "group_size"),
    ("rollout", "prompts_per_step"),
    ("rollout", "prompts_per_lease"),
    ("rollout", "temperature"),
    ("rollout", "top_p"),
    ("rollout", "top_k"),
    ("rollout", "refill_attempts"),
    ("rollout", "max_policy_lag"),
    ("evaluation", "every_steps"),
    ("evaluation", "record_answers"),
];
/// Endings of the files that make a policy.
const POLICY_FILES: [&str; 3] = ["json", "jinja", "safetensors"];

/// SHA-256 of a value's text, in hexadecimal.
pub(super) fn digest(value: &Value) -> String {
    hex(&Sha256::digest(value.to_string()))
}

/// The settings of a run that its held-out answers may depend on.
pub(super) fn settings(run: &RunFile) -> Value {
    let mut value = serde_json::to_value(run).expect("a run file is plain data");
    let Some(sections) = value.as_object_mut() else { return value };
    for section in SECTIONS {
        sections.shift_remove(section);
    }
    for (section, key) in KEYS {
        if let Some(section) = sections.get_mut(section).and_then(Value::as_object_mut) {
            section.shift_remove(key);
        }
    }
    // Devices round differently. Where a name leaves it open, it is the same on the same machine.
    sections.insert("device".into(), json!(run.launch.rollout_device));
    value
}

/// The files of a policy by name, with their checksums.
pub(super) fn policy(run: &RunFile) -> Result<Value, Error> {
    let is_policys = |name: &str| {
        Path::new(name).extension().is_some_and(|ending| POLICY_FILES.iter().any(|known| ending == *known))
    };
    let folder = |place: &Option<std::path::PathBuf>| {
        place.as_deref().map(|folder| files(folder, is_policys)).transpose()
    };
    Ok(json!({"model": folder(&run.model.path)?, "adapter": folder(&run.lora.adapter)?}))
}

/// The files of a data set that prompts, candidates and baselines are made of, by name, with their checksums.
pub(super) fn data(folder: &Path, name: &str) -> Result<Value, Error> {
    let endings = ["_titles.csv", "_captions.json", "_negatives.tsv"];
    let is_read = |file: &str| {
        matches!(file, "train.tsv" | "test.tsv")
            || file.strip_prefix(name).is_some_and(|ending| endings.contains(&ending))
    };
    Ok(json!(files(folder, is_read)?))
}

/// The checksum of a file.
pub(super) fn file(path: &Path) -> Result<String, Error> {
    Ok(hex(&durable::sha256(path)?))
}

fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, String>, Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with('.') && wanted(&name) && path.is_file() {
            found.insert(name, file(&path)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_with(assignments: &[&str]) -> String {
        let overrides: Vec<_> = assignments.iter().map(|text| text.parse().unwrap()).collect();
        digest(&settings(&RunFile::parse("", "test", &overrides).unwrap()))
    }

    #[test]
    fn what_answers_depend_on_is_told_from_what_they_do_not() {
        let usual = settings_with(&[]);
        for other in [
            "candidates.count=20",
            "candidates.evaluation_seed=1",
            "evaluation.draw=1",
            "evaluation.reversed=true",
            "evaluation.users=7",
            "evaluation.prompts_per_lease=3",
            "evaluation.likelihood=true",
            "evaluation.temperature=0.5",
            "rollout.constrain_answers=true",
            "rollout.max_new_tokens=9",
            "rollout.threads=2",
            "answer.layout=ids",
            "prompt.template=compact",
            "model.dtype=bfloat16",
            "data.min_interactions=4",
            "world.seed=9",
            "run.seed=3",
            "launch.rollout_device=cuda",
        ] {
            assert_ne!(settings_with(&[other]), usual, "{other}");
        }
        for same in [
            "run.steps=7",
            "run.name=other",
            "data.training_targets=every",
            "grpo.beta=0.5",
            "launch.workers=9",
            "learner.learning_rate=1",
            "model.path=elsewhere",
            "network.request_timeout_ms=77777",
            "rollout.group_size=3",
        ] {
            assert_eq!(settings_with(&[same]), usual, "{same}");
        }
    }

    #[test]
    fn a_policy_is_its_files_and_a_data_set_is_what_is_read_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("model.safetensors", "weights");
        write("train.tsv", "1\t2 3\n");
        let run = RunFile {
            model: podium_config::Model { path: Some(folder.path().into()), ..Default::default() },
            ..Default::default()
        };
        let (before, data_before) = (policy(&run).unwrap(), data(folder.path(), "shop").unwrap());
        write("optimizer.pt", "state");
        write("shop_reasoning.json", "[]");
        assert_eq!(policy(&run).unwrap()["adapter"], Value::Null);
        assert_eq!(data(folder.path(), "shop").unwrap(), data_before);
        write("model.safetensors", "other");
        assert_ne!(policy(&run).unwrap(), before);
        write("shop_titles.csv", "id,title\n");
        assert_ne!(data(folder.path(), "shop").unwrap(), data_before);
        let missing = RunFile {
            model: podium_config::Model { path: Some("/nowhere/at/all".into()), ..Default::default() },
            ..Default::default()
        };
        assert!(policy(&missing).unwrap_err().to_string().contains("/nowhere/at/all"));
    }
}
