//! The settings of a replay: a run file with different defaults, and TRL's names for keys of other sections.

use std::path::Path;

use podium_config::{Error, Override, RunFile};

/// Differences from the defaults of a run.
const BASE: &str = "[learner]\nlearning_rate = 1e-3\n";

/// Key of the number of completions per group.
const GROUP_SIZE: &str = "rollout.group_size";

/// Fields of TRL's `GRPOConfig` that a run file has in other sections.
const ELSEWHERE: [(&str, &str); 12] = [
    ("temperature", "rollout.temperature"),
    ("top_p", "rollout.top_p"),
    ("top_k", "rollout.top_k"),
    ("num_generations", GROUP_SIZE),
    ("learning_rate", "learner.learning_rate"),
    ("lr_scheduler_type", "learner.lr_scheduler_type"),
    ("warmup_steps", "learner.warmup_steps"),
    ("max_grad_norm", "learner.max_grad_norm"),
    ("adam_beta1", "learner.adam_beta1"),
    ("adam_beta2", "learner.adam_beta2"),
    ("adam_epsilon", "learner.adam_epsilon"),
    ("weight_decay", "learner.weight_decay"),
];

/// The settings of a replay.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The resulting run file.
    pub file: RunFile,
    /// Whether a run file sets the limit of the completions' length; otherwise the longest completion does.
    pub(super) own_lengths: bool,
    /// Completions per group, if set explicitly; otherwise defined by the rows.
    pub(super) group_size: Option<usize>,
}

impl Settings {
    /// Reads the settings of a replay: those of a run file, such as that of the recorded run, or its own defaults, with
    /// `overrides` on top: `section.key=value`, also with TRL's names under `grpo`.
    pub fn load(run_file: Option<&Path>, overrides: &[String]) -> Result<Self, Error> {
        let translated: Vec<String> = overrides.iter().filter_map(|text| translated(text)).collect();
        let sets_size = |text: &String| text.split_once('=').is_some_and(|(key, _)| key.trim() == GROUP_SIZE);
        let said = run_file.is_some() || translated.iter().any(sets_size);
        let overrides: Vec<Override> =
            translated.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let file = match run_file {
            Some(path) => RunFile::load(path, &overrides)?,
            None => RunFile::parse(BASE, "the defaults of replay", &overrides)?,
        };
        Ok(Self {
            group_size: said.then_some(file.rollout.group_size as usize),
            own_lengths: run_file.is_some(),
            file,
        })
    }
}

/// Translates an assignment to a run file's names and values; returns `None` for Python's `None`, which selects the
/// default.
fn translated(text: &str) -> Option<String> {
    let Some((key, value)) = text.split_once('=') else { return Some(text.to_owned()) };
    let value = match value.trim() {
        "None" => return None,
        "True" => "true",
        "False" => "false",
        value => value,
    };
    let key = key.trim();
    let elsewhere = key
        .strip_prefix("grpo.")
        .and_then(|name| ELSEWHERE.iter().find(|(trl, _)| *trl == name).map(|(_, own)| *own));
    let value = match (key, value) {
        ("grpo.scale_rewards", "true") => "group",
        ("grpo.scale_rewards", "false") => "none",
        _ => value,
    };
    Some(format!("{}={value}", elsewhere.unwrap_or(key)))
}

#[cfg(test)]
mod tests {
    use podium_grpo::options::ScaleRewards;

    use super::*;

    #[test]
    fn names_and_values_of_trl_are_understood() {
        let settings = [
            "grpo.temperature=0.7",
            "grpo.lr_scheduler_type=cosine",
            "grpo.use_bias_correction_kl=False",
            "grpo.scale_rewards=False",
            "grpo.epsilon_high=None",
            "learner.adam_beta2=0.95",
        ];
        let Settings { file, group_size, own_lengths } =
            Settings::load(None, &settings.map(str::to_owned)).unwrap();
        assert_eq!((group_size, own_lengths), (None, false));
        assert!((file.rollout.temperature - 0.7).abs() < f64::EPSILON);
        assert!((file.learner.learning_rate - 1e-3).abs() < f64::EPSILON);
        assert!((file.learner.adam_beta2 - 0.95).abs() < f64::EPSILON);
        assert_eq!((file.grpo.scale_rewards, file.grpo.epsilon_high), (ScaleRewards::None, None));
        assert!(!file.grpo.use_bias_correction_kl);
        let error = Settings::load(None, &["grpo.los_type=dapo".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("did you mean `grpo.loss_type`"));
        assert!(Settings::load(None, &["grpo.loss_type".to_owned()]).is_err());
        let sized = |text: &str| Settings::load(None, &[text.to_owned()]).unwrap().group_size;
        assert_eq!((sized("grpo.num_generations=4"), sized("rollout.group_size=6")), (Some(4), Some(6)));
    }
}
