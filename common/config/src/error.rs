//! Errors of reading a run file.

use std::path::PathBuf;

/// A run file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the run file {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin} is not TOML")]
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
    #[error("{origin} has an invalid value")]
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
