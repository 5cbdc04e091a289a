//! Errors of serving and publishing versions.

use std::io;
use std::path::PathBuf;

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_service::logs::describe;
use podium_transfer::Content;
use podium_transfer::manifest;
use podium_transfer::receive;

use crate::store;

/// The reasons why a version cannot be served or published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run file does not set an initial policy.
    #[error("model.path is not set: name the folder of the policy to start from, in Hugging Face layout")]
    NoStart,
    /// The initial policy cannot be used.
    #[error("cannot start from the policy in {}", folder.display())]
    Start {
        /// The value of `model.path`.
        folder: PathBuf,
        /// The cause.
        source: manifest::Error,
    },
    /// The initial policy has no weights.
    #[error("cannot start from the policy in {}: it has no .safetensors file", folder.display())]
    NoWeights {
        /// The value of `model.path`.
        folder: PathBuf,
    },
    /// The initial policy differs from the one that the run began with.
    #[error("the policy in {} differs in architecture or tokenizer from the one that this run began with: set model.path back, or choose another folder with --out", folder.display())]
    OtherStart {
        /// The value of `model.path`.
        folder: PathBuf,
    },
    /// A file cannot be copied.
    #[error("cannot copy {}", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Version 0 cannot be restored with its original content.
    #[error("the policy in {} differs from the one that this run began with: set model.path back, or choose another folder with --out", folder.display())]
    OtherContent {
        /// The value of `model.path`.
        folder: PathBuf,
    },
    /// Version 0 is missing or damaged, and cannot be restored.
    #[error("{}; it cannot be recomputed", describe(damage))]
    StartGone {
        /// The damage.
        damage: Box<Error>,
        /// The reason why it cannot be restored.
        source: Box<Error>,
    },
    /// The version was never published, or was dropped.
    #[error("there is no {0}")]
    NotThere(PolicyVersion),
    /// The version's folder is missing: it is no longer needed, or it was removed.
    #[error("{version} is not on disk: there is no folder {}", folder.display())]
    Gone {
        /// The version.
        version: PolicyVersion,
        /// Its former folder.
        folder: PathBuf,
    },
    /// The version's folder does not have the published content.
    #[error("{version} cannot be served")]
    Unusable {
        /// The version.
        version: PolicyVersion,
        /// The difference.
        source: manifest::Error,
    },
    /// The requested content is not the version's.
    #[error("{version} was superseded: its content is {content}")]
    Superseded {
        /// The version.
        version: PolicyVersion,
        /// Its content.
        content: Content,
    },
    /// The version has no such file.
    #[error("{version} has no file {name:?}")]
    NoFile {
        /// The version.
        version: PolicyVersion,
        /// The file.
        name: String,
    },
    /// The version belongs to another run.
    #[error(
        "{version} belongs to the run with hash {found}, this coordinator runs {expected}: start the learner with this run's file"
    )]
    OtherRun {
        /// The version.
        version: PolicyVersion,
        /// Its run hash.
        found: String,
        /// The hash of this run.
        expected: String,
    },
    /// The version belongs to another model.
    #[error(
        "{version} has model fingerprint {found}, this run's policy has {expected}: architecture and tokenizer must be those of version 0"
    )]
    OtherModel {
        /// The version.
        version: PolicyVersion,
        /// Its fingerprint.
        found: String,
        /// The fingerprint of version 0.
        expected: String,
    },
    /// The same step produced another policy, and later steps may depend on the published one.
    #[error(
        "{version} was published before with other content ({published}; this learner produced {found}), and its step is committed. The same build on the same kind of device with the same number of threads produces the same content. To continue with this learner, stop the run and drop the published version with everything that was sampled from it: podium drop-version --out RUN --version {}",
        version.0
    )]
    NotDeterministic {
        /// The version.
        version: PolicyVersion,
        /// The published content.
        published: Content,
        /// The offered content.
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
    /// A manifest in the store is inconsistent.
    #[error(transparent)]
    Manifest(#[from] podium_proto::convert::Error),
}
