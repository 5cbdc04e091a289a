//! The run file as data: its sections, and the hash that identifies a run.

use std::path::PathBuf;

use podium_recsys::reward::External;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::sections::{Evaluation, Launch, Learner, Lora, Model, Network, Rollout, Run, Sft};

const NOT_HASHED: [&str; 2] = ["network", "launch"];
/// Paths are excluded since contents are compared by fingerprint; recording options do not change results.
const NOT_HASHED_KEYS: [(&str, &str); 9] = [
    ("model", "path"),
    // Permits a number type that is hashed itself.
    ("model", "emulate_bfloat16"),
    ("data", "dir"),
    ("lora", "adapter"),
    ("sft", "rows"),
    ("run", "record_groups"),
    ("run", "stages"),
    ("evaluation", "record_answers"),
    // The bound rejects groups but never changes how an accepted group is trained on.
    ("learner", "max_logprob_gap_nats"),
];

/// Keys added after the first release. Default values are not hashed, so that older runs can be resumed.
const ADDED_KEYS: [(&str, &str); 10] = [
    ("reward", "external"),
    ("learner", "zero_stage"),
    ("rollout", "prefill_tokens"),
    ("rollout", "merge_adapter"),
    ("model", "attention"),
    ("run", "portable"),
    ("candidates", "untouched_in_training"),
    ("world", "new_items_per_pair"),
    ("world", "new_share"),
    ("world", "popularity_skew"),
];

/// The complete configuration of a run. Every section and every key is optional.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunFile {
    /// General settings of the run.
    pub run: Run,
    /// The data set. Without `dir` the embedded synthetic data set is generated.
    pub data: podium_recsys::dataset::Options,
    /// The synthetic world that the embedded data set is sampled from.
    pub world: podium_recsys::synthetic::World,
    /// Construction of the prompt from a user's history and candidates.
    pub prompt: podium_recsys::prompt::Options,
    /// The required format of an answer.
    pub answer: podium_recsys::completion::Options,
    /// Sampling of the candidates other than the target.
    pub candidates: podium_recsys::candidates::Options,
    /// The initial policy.
    pub model: Model,
    /// The `LoRA` adapter that is trained instead of all weights.
    pub lora: Lora,
    /// Sampling of training completions.
    pub rollout: Rollout,
    /// The reward of a completion.
    pub reward: podium_recsys::reward::Options,
    /// Advantages and loss, with TRL's names.
    pub grpo: podium_grpo::Options,
    /// The optimizer.
    pub learner: Learner,
    /// Held-out evaluation.
    pub evaluation: Evaluation,
    /// The reward inflation watch and early stopping.
    pub watch: podium_recsys::watch::Options,
    /// Supervised fine-tuning (`podium-learner sft`).
    pub sft: Sft,
    /// The completions that supervised fine-tuning imitates.
    pub demonstration: podium_recsys::demonstration::Options,
    /// Addresses, limits and deadlines. Never changes results.
    pub network: Network,
    /// Number and devices of the processes that the launcher starts. Never changes results.
    pub launch: Launch,
}

impl RunFile {
    /// Returns the sections that define prompt, answer, candidates and reward.
    pub fn task(&self) -> podium_recsys::task::Options {
        podium_recsys::task::Options {
            prompt: self.prompt.clone(),
            answer: self.answer.clone(),
            candidates: self.candidates.clone(),
            reward: self.reward.clone(),
        }
    }

    /// Builds the reward with the same checks as before a run starts.
    pub fn rewards(&self) -> Result<podium_recsys::reward::Rewards, podium_recsys::reward::Error> {
        podium_recsys::reward::Rewards::new(&self.reward, &self.answer, self.candidates.count)
    }

    /// Returns the resolved file as TOML, with every key.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a run file's tables hold strings, numbers and lists only")
    }

    /// Returns the paths of files and folders that are relative to the run file's folder in the file. The working directory of
    /// an external reward's program becomes that folder if it is not set.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Self { data, model, lora, sft, network, reward, .. } = self;
        for term in reward.external.iter_mut().filter(|term| !term.command.is_empty()) {
            term.directory.get_or_insert_with(|| PathBuf::from("."));
        }
        let own =
            [&mut data.dir, &mut model.path, &mut lora.adapter, &mut sft.rows, &mut network.secret_file];
        let of_terms =
            reward.external.iter_mut().flat_map(|term| [&mut term.directory, &mut term.token_file]);
        own.into_iter().chain(of_terms).flatten()
    }

    /// SHA-256 over every section except `network` and `launch` and over all keys except `NOT_HASHED_KEYS`, in
    /// hexadecimal. Keys of external rewards count unless they are in [`External::NOT_HASHED`]. `ADDED_KEYS` count unless they have their defaults.
    ///
    /// Processes with the same hash belong to the same run: same data order, same sampling, same updates.
    pub fn hash(&self) -> String {
        let mut value = serde_json::to_value(self).expect("a run file is plain data");
        let defaults = serde_json::to_value(Self::default()).expect("a run file is plain data");
        let at_default =
            |(section, key): &(&str, &str)| value[*section].get(key) == defaults[*section].get(key);
        let added: Vec<_> = ADDED_KEYS.into_iter().filter(at_default).collect();
        let sections = value.as_object_mut().expect("a run file is a table");
        for section in NOT_HASHED {
            sections.shift_remove(section);
        }
        for (section, key) in NOT_HASHED_KEYS.into_iter().chain(added) {
            if let Some(section) = sections.get_mut(section).and_then(|section| section.as_object_mut()) {
                section.shift_remove(key);
            }
        }
        let external = sections.get_mut("reward").and_then(|reward| reward.get_mut("external"));
        for term in external.and_then(Value::as_array_mut).into_iter().flatten() {
            for key in External::NOT_HASHED {
                term.as_object_mut().and_then(|term| term.shift_remove(key));
            }
        }
        let mut digest = Sha256::new();
        digest.update(value.to_string());
        format!("{:x}", digest.finalize())
    }
}
