//! The run file: one TOML file that every process of a run reads.
//!
//! Layers, in ascending precedence: defaults, the file, environment variables (`PODIUM_SECTION__KEY`), flags (`--set
//! section.key=value`). Unknown keys are rejected with a suggestion of the nearest known key. [`RunFile::hash`] covers
//! the sections that change results, so that processes of different runs detect each other.
//!
//! This crate parses text and numbers only; it opens no data set and no model.

mod layers;
pub mod reference;
pub mod sections;
mod validate;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use layers::Override;
pub use sections::{
    CollectiveChoice, DataType, Evaluation, Launch, Learner, Lora, LrScheduler, Model, Network, Rollout, Run,
    Sft, Stage,
};

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
    /// Reads a run file, applies environment variables and `overrides`, and validates the result.
    ///
    /// Relative paths in the file are resolved against the file's folder.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let mut file = layers::assemble(&text, &path.display().to_string(), layers::variables()?, overrides)?;
        file.resolve_paths(&folder)?;
        Ok(file)
    }

    /// Parses a run file that is embedded in the program. Relative paths are not resolved.
    pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self, Error> {
        layers::assemble(text, name, layers::variables()?, overrides)
    }

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

    /// SHA-256 over every section except `network` and `launch` and over all keys except `NOT_HASHED_KEYS`, in
    /// hexadecimal. `ADDED_KEYS` count unless they have their defaults.
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
        let mut digest = Sha256::new();
        digest.update(value.to_string());
        format!("{:x}", digest.finalize())
    }

    fn resolve_paths(&mut self, folder: &Path) -> Result<(), Error> {
        let paths = [&mut self.data.dir, &mut self.model.path, &mut self.lora.adapter, &mut self.sft.rows];
        for path in paths.into_iter().flatten() {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
            require_text(path)?;
        }
        Ok(())
    }
}

/// Rejects a path that is not UTF-8 and therefore cannot be stored in a run file.
pub fn require_text(path: &Path) -> Result<(), Error> {
    if path.to_str().is_some() { Ok(()) } else { Err(Error::Path { path: path.to_owned() }) }
}

const NOT_HASHED: [&str; 2] = ["network", "launch"];
/// Paths are excluded since contents are compared by fingerprint; recording options do not change results.
const NOT_HASHED_KEYS: [(&str, &str); 8] = [
    ("model", "path"),
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
const ADDED_KEYS: [(&str, &str); 5] = [
    ("run", "portable"),
    ("candidates", "untouched_in_training"),
    ("world", "new_items_per_pair"),
    ("world", "new_share"),
    ("world", "popularity_skew"),
];

/// A run file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the run file {}: {source}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin} is not TOML: {source}")]
    Syntax {
        /// File, variable or flag.
        origin: String,
        /// Position and cause.
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("{origin}: there is no key `{key}`{}", nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    UnknownKey {
        /// File, variable or flag.
        origin: String,
        /// The dotted key.
        key: String,
        /// The nearest known key.
        nearest: Option<String>,
    },
    /// A key with a value of the wrong type.
    #[error("{origin}: {source}")]
    Type {
        /// File, variable or flag.
        origin: String,
        /// The key and the expected type.
        source: Box<toml::de::Error>,
    },
    /// A path that is not UTF-8.
    #[error(
        "{path:?} is not UTF-8 and cannot be stored in the run file: rename the folder or choose another"
    )]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// An environment variable that sets a key has a value that is not UTF-8.
    #[error("the environment variable {name} is {value:?}, which is not UTF-8: expected text")]
    Variable {
        /// Its name.
        name: String,
        /// Its value, with invalid bytes replaced.
        value: String,
    },
    /// A flag that is not an assignment to a key.
    #[error("{text:?} is not an assignment: expected section.key=value")]
    Assignment {
        /// The rejected text.
        text: String,
    },
    /// A value outside its range, or values that contradict each other.
    #[error("{key} is {value}: expected {expected}")]
    Range {
        /// The dotted key.
        key: &'static str,
        /// The rejected value.
        value: String,
        /// The permitted values.
        expected: String,
    },
    /// An error in the `[grpo]` section.
    #[error(transparent)]
    Grpo(#[from] podium_grpo::options::Error),
    /// An error in the `[reward]` section, or a reward that contradicts the metric.
    #[error(transparent)]
    Reward(#[from] podium_recsys::reward::Error),
    /// An error in the `[watch]` section.
    #[error(transparent)]
    Watch(#[from] podium_recsys::watch::Error),
}
