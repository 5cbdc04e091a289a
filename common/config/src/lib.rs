//! The run file: one TOML file that every process of a run reads.
//!
//! Layers, each winning over the one before: defaults, the file, environment variables (`PODIUM_SECTION__KEY`), flags
//! (`--set section.key=value`). Unknown keys are refused with the nearest known one. [`RunFile::hash`] covers the
//! sections that change results, so that a process of another run is recognised.
//!
//! This crate reads text and numbers; it opens no data set and no model.

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

/// Everything a run is made of. Every section and every key may be left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunFile {
    /// The run as a whole.
    pub run: Run,
    /// The data set. Without a folder the embedded one is generated.
    pub data: podium_recsys::dataset::Options,
    /// The world that the embedded data set is drawn from.
    pub world: podium_recsys::synthetic::World,
    /// How a prompt is made of a history and candidates.
    pub prompt: podium_recsys::prompt::Options,
    /// What an answer has to look like.
    pub answer: podium_recsys::completion::Options,
    /// How the candidates beside the target are drawn.
    pub candidates: podium_recsys::candidates::Options,
    /// The policy at the start.
    pub model: Model,
    /// The adapter that is trained instead of all weights.
    pub lora: Lora,
    /// Sampling of training completions.
    pub rollout: Rollout,
    /// What a completion earns.
    pub reward: podium_recsys::reward::Options,
    /// Advantages and loss, under TRL's names.
    pub grpo: podium_grpo::Options,
    /// The optimizer.
    pub learner: Learner,
    /// Held-out evaluation.
    pub evaluation: Evaluation,
    /// The reward inflation watch, and when a run ends early.
    pub watch: podium_recsys::watch::Options,
    /// Supervised fine-tuning (`podium-learner sft`).
    pub sft: Sft,
    /// The completions that supervised fine-tuning imitates.
    pub demonstration: podium_recsys::demonstration::Options,
    /// Addresses, limits and deadlines. Never changes results.
    pub network: Network,
    /// How many processes the launcher starts and on which devices. Never changes results.
    pub launch: Launch,
}

impl RunFile {
    /// Reads a run file with the environment and `overrides` on top, and checks it.
    ///
    /// Relative paths in the file are taken from the file's folder.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let mut file = layers::assemble(&text, &path.display().to_string(), layers::variables()?, overrides)?;
        file.resolve_paths(&folder)?;
        Ok(file)
    }

    /// The same for a text that is part of the program. Relative paths stay as they are.
    pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self, Error> {
        layers::assemble(text, name, layers::variables()?, overrides)
    }

    /// The sections that say what a prompt, an answer and its reward are.
    pub fn task(&self) -> podium_recsys::task::Options {
        podium_recsys::task::Options {
            prompt: self.prompt.clone(),
            answer: self.answer.clone(),
            candidates: self.candidates.clone(),
            reward: self.reward.clone(),
        }
    }

    /// The reward, checked as it is before a run starts.
    pub fn rewards(&self) -> Result<podium_recsys::reward::Rewards, podium_recsys::reward::Error> {
        podium_recsys::reward::Rewards::new(&self.reward, &self.answer, self.candidates.count)
    }

    /// The resolved file, every key spelled out.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a run file's tables hold strings, numbers and lists only")
    }

    /// SHA-256 over every section but `network` and `launch`, as hexadecimal text.
    ///
    /// Two processes with the same hash want the same run: same data order, same sampling, same updates.
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

/// Refuses a path that a run file, which is text, cannot hold.
pub fn require_text(path: &Path) -> Result<(), Error> {
    if path.to_str().is_some() { Ok(()) } else { Err(Error::Path { path: path.to_owned() }) }
}

const NOT_HASHED: [&str; 2] = ["network", "launch"];
/// Where things lie does not say what they are: contents are compared by fingerprint. What is recorded changes nothing.
const NOT_HASHED_KEYS: [(&str, &str); 8] = [
    ("model", "path"),
    ("data", "dir"),
    ("lora", "adapter"),
    ("sft", "rows"),
    ("run", "record_groups"),
    ("run", "stages"),
    ("evaluation", "record_answers"),
    // Groups within the bound are trained on as without it, and others never.
    ("learner", "max_logprob_gap_nats"),
];

/// Keys that were added after the first release. At their defaults they are not hashed, so that runs which were started
/// without them continue.
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
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin} is not TOML: {source}")]
    Syntax {
        /// File, variable or flag.
        origin: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("{origin}: there is no key `{key}`{}", nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    UnknownKey {
        /// File, variable or flag.
        origin: String,
        /// The dotted key.
        key: String,
        /// The nearest that exists.
        nearest: Option<String>,
    },
    /// A key with a value of the wrong type.
    #[error("{origin}: {source}")]
    Type {
        /// File, variable or flag.
        origin: String,
        /// Which key and what was expected.
        source: Box<toml::de::Error>,
    },
    /// A path that is not UTF-8.
    #[error(
        "{path:?} is not UTF-8, and the run file, which is text, has to hold it: rename the folder or choose another"
    )]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A variable that sets a key to something that is not UTF-8.
    #[error("the environment variable {name} is {value:?}, which is not UTF-8: expected text")]
    Variable {
        /// Its name.
        name: String,
        /// Its value, as far as it is text.
        value: String,
    },
    /// A flag or variable that is no assignment to a key.
    #[error("{text:?} is no assignment: expected section.key=value")]
    Assignment {
        /// What was given.
        text: String,
    },
    /// A value outside its range, or values that contradict each other.
    #[error("{key} is {value}: expected {expected}")]
    Range {
        /// The dotted key.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// The `[grpo]` section.
    #[error(transparent)]
    Grpo(#[from] podium_grpo::options::Error),
    /// The `[reward]` section, or a reward that pays for the wrong thing.
    #[error(transparent)]
    Reward(#[from] podium_recsys::reward::Error),
    /// The `[watch]` section.
    #[error(transparent)]
    Watch(#[from] podium_recsys::watch::Error),
}
