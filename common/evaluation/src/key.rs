//! The inputs of answers, and the names derived from them.
//!
//! Unknown settings count as relevant: a new key of the run file is safe without an entry in this list, because a
//! result is rather computed twice than confused with another.

use podium_config::RunFile;
use podium_files::durable::hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::lists::Lists;

/// Sections that do not affect greedy or sampled held-out answers.
const SECTIONS: [&str; 8] =
    ["grpo", "learner", "sft", "demonstration", "watch", "reward", "network", "launch"];
/// Single keys that do not affect them. Folders are identified by content, not by location.
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

/// Further keys of which a ranking of the whole catalogue is independent.
const SAMPLED_KEYS: [(&str, &str); 2] = [("candidates", "count"), ("candidates", "negatives")];

/// SHA-256 of a value's text, in hexadecimal.
pub(crate) fn digest(value: &Value) -> String {
    hex(&Sha256::digest(value.to_string()))
}

/// Returns the settings of a run that may affect its held-out answers, with these candidates.
pub(crate) fn settings(run: &RunFile, lists: Lists) -> Value {
    let mut value = serde_json::to_value(run).expect("a run file is plain data");
    let Some(sections) = value.as_object_mut() else { return value };
    for section in SECTIONS {
        sections.shift_remove(section);
    }
    let further = SAMPLED_KEYS.into_iter().filter(|_| lists == Lists::Catalogue);
    for (section, key) in KEYS.into_iter().chain(further) {
        if let Some(section) = sections.get_mut(section).and_then(Value::as_object_mut) {
            section.shift_remove(key);
        }
    }
    // Devices round differently. A name such as auto is the same device on the same machine.
    sections.insert("device".into(), json!(run.launch.rollout_device));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_of(lists: Lists, assignments: &[&str]) -> String {
        let overrides: Vec<_> = assignments.iter().map(|text| text.parse().unwrap()).collect();
        digest(&settings(&RunFile::parse("", "test", &overrides).unwrap(), lists))
    }

    fn settings_with(assignments: &[&str]) -> String {
        settings_of(Lists::Sampled(9), assignments)
    }

    #[test]
    fn a_ranking_of_the_catalogue_is_independent_of_sampled_lists() {
        let of = |assignment: &str| settings_of(Lists::Catalogue, &[assignment]);
        let usual = settings_of(Lists::Catalogue, &[]);
        assert_eq!(of("candidates.count=20"), usual);
        assert_eq!(of("candidates.negatives=popularity"), usual);
        assert_ne!(of("candidates.evaluation_seed=1"), usual);
    }

    #[test]
    fn the_part_is_relevant() {
        assert_ne!(settings_with(&["run.steps=0", "evaluation.part=test"]), settings_with(&["run.steps=0"]));
    }

    #[test]
    fn relevant_and_irrelevant_settings_are_distinguished() {
        let usual = settings_with(&[]);
        for other in [
            "candidates.count=20",
            "candidates.evaluation_seed=1",
            "data.validation=none",
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
}
