//! Why a version cannot be served or published.

use std::io;
use std::path::PathBuf;

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_service::logs::describe;
use podium_transfer::Content;
use podium_transfer::manifest;
use podium_transfer::receive;

use crate::store;

/// Why a version cannot be served or published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run file names no policy to start from.
    #[error("model.path is not set: name the folder of the policy to start from, in Hugging Face layout")]
    NoStart,
    /// The start cannot be used.
    #[error("cannot start from the policy in {}", folder.display())]
    Start {
        /// model.path
        folder: PathBuf,
        /// Why.
        source: manifest::Error,
    },
    /// The start has no weights.
    #[error("cannot start from the policy in {}: it has no .safetensors file", folder.display())]
    NoWeights {
        /// model.path
        folder: PathBuf,
    },
    /// The start is not what the run began with.
    #[error("the policy in {} differs in architecture or tokenizer from the one that this run began with: set model.path back, or choose another folder with --out", folder.display())]
    OtherStart {
        /// model.path
        folder: PathBuf,
    },
    /// A file cannot be copied.
    #[error("cannot copy {}", path.display())]
    Copy {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The start cannot be made again as it was.
    #[error("the policy in {} differs from the one that this run began with: set model.path back, or choose another folder with --out", folder.display())]
    OtherContent {
        /// model.path
        folder: PathBuf,
    },
    /// Version 0 is missing or damaged, and there is nothing to make it from.
    #[error("{}; it cannot be made again", describe(damage))]
    StartGone {
        /// What is wrong with it.
        damage: Box<Error>,
        /// Why it cannot be made again.
        source: Box<Error>,
    },
    /// A version that never was, or was dropped.
    #[error("there is no {0}")]
    NotThere(PolicyVersion),
    /// A version whose folder is missing: it is no longer needed, or it was removed.
    #[error("{version} is not on disk: there is no folder {}", folder.display())]
    Gone {
        /// The version.
        version: PolicyVersion,
        /// Where it was.
        folder: PathBuf,
    },
    /// A version whose folder does not hold what was published.
    #[error("{version} cannot be served")]
    Unusable {
        /// The version.
        version: PolicyVersion,
        /// What is wrong.
        source: manifest::Error,
    },
    /// A file that the version does not have.
    #[error("{version} has no file {name:?}")]
    NoFile {
        /// The version.
        version: PolicyVersion,
        /// The file.
        name: String,
    },
    /// A version of another run.
    #[error(
        "{version} belongs to the run with hash {found}, this coordinator runs {expected}: start the learner with this run's file"
    )]
    OtherRun {
        /// The version.
        version: PolicyVersion,
        /// Its run.
        found: String,
        /// This run.
        expected: String,
    },
    /// A version of another model.
    #[error(
        "{version} has model fingerprint {found}, this run's policy has {expected}: architecture and tokenizer must stay as they are in version 0"
    )]
    OtherModel {
        /// The version.
        version: PolicyVersion,
        /// Its fingerprint.
        found: String,
        /// That of version 0.
        expected: String,
    },
    /// The same step led to another policy, and later steps may build upon the one that was published.
    #[error(
        "{version} was published before with other content ({published}; this learner made {found}), and its step is committed. The same build on the same kind of device with the same number of threads makes the same content. To go on with this learner, stop the run and drop the published version with everything that was sampled from it: podium drop-version --out RUN --version {}",
        version.0
    )]
    NotDeterministic {
        /// The version.
        version: PolicyVersion,
        /// What was published.
        published: Content,
        /// What was offered now.
        found: Content,
    },
    /// Files could not be received.
    #[error(transparent)]
    Receive(#[from] receive::Error),
    /// Files could not be written or read.
    #[error(transparent)]
    File(#[from] durable::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A manifest in the store does not hold together.
    #[error(transparent)]
    Manifest(#[from] podium_proto::convert::Error),
}
