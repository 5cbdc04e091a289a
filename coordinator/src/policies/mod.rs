//! The policy versions of a run: folders under `<out>/policy/`, with their manifests in the store.
//!
//! A version exists once its folder is whole and its manifest is stored. Manifests outlive folders that are no longer
//! needed, so that a learner which repeats old steps is held to what it published before. A folder that is removed or
//! damaged is found by [`Policies::inspect`]; version 0 is then made again from `model.path`, others by the learner.

mod inspection;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_service::logs::describe;
use podium_transfer::Content;
use podium_transfer::manifest::{self, Manifest};
use podium_transfer::receive::{self, Receiver};

use crate::machine::Schedule;
use crate::store::{self, Store};
use inspection::Inspected;
pub use start::Start;

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

/// The versions.
#[derive(Debug)]
pub struct Policies {
    root: PathBuf,
    run_hash: String,
    fingerprint: String,
    start: Start,
    known: RwLock<BTreeMap<PolicyVersion, Manifest>>,
    inspected: Mutex<BTreeMap<PolicyVersion, Inspected>>,
    /// Held while version 0 is made again.
    rebuilding: Mutex<()>,
}

/// How an offered version compares with the published one of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// None was published.
    New,
    /// It has the same content.
    Same,
    /// It has another content: this one.
    Other(Content),
}

impl Policies {
    /// The versions under `root`; imports `start` as version 0 where there is none yet, and makes it again where it is
    /// incomplete.
    pub fn open(root: &Path, run_hash: &str, start: Start, store: &Store) -> Result<Self, Error> {
        durable::create_folder(root)?;
        let mut known = BTreeMap::new();
        for message in store.policies()? {
            let manifest = Manifest::try_from(message)?;
            known.insert(manifest.version, manifest);
        }
        let manifest = if let Some(manifest) = known.get(&PolicyVersion::START) {
            manifest.clone()
        } else {
            let manifest = start.import(root, run_hash)?;
            store.put_policy(&(&manifest).into())?;
            manifest
        };
        if let Some(start) = start.model.as_ref().filter(|start| start.is_dir()) {
            let failed = |source| Error::Start { folder: start.to_owned(), source };
            if manifest::fingerprint(start).map_err(failed)? != manifest.model_fingerprint {
                return Err(Error::OtherStart { folder: start.to_owned() });
            }
        }
        let fingerprint = manifest.model_fingerprint.clone();
        known.insert(PolicyVersion::START, manifest);
        let policies = Self {
            root: root.to_owned(),
            run_hash: run_hash.to_owned(),
            fingerprint,
            start,
            known: RwLock::new(known),
            inspected: Mutex::default(),
            rebuilding: Mutex::default(),
        };
        if policies.look(PolicyVersion::START).is_err() {
            policies.rebuild_start()?;
        }
        Ok(policies)
    }

    /// The fingerprint of the architecture and tokenizer of all versions.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The manifest of a version that can be served; of the newest such version where none is named. Version 0 is made
    /// again where it is missing.
    pub fn manifest(&self, version: Option<PolicyVersion>) -> Result<Manifest, Error> {
        let Some(version) = version else {
            let versions: Vec<_> =
                self.known.read().unwrap_or_else(PoisonError::into_inner).keys().rev().copied().collect();
            let served = versions.into_iter().find_map(|version| self.look(version).ok());
            return served.map_or_else(|| self.manifest(Some(PolicyVersion::START)), Ok);
        };
        match self.look(version) {
            Err(error) if version == PolicyVersion::START => {
                tracing::error!("{}", describe(&error));
                self.rebuild_start()?;
                self.look(version)
            }
            looked => looked,
        }
    }

    /// The content of a version; `None` where it was never published, or was dropped.
    pub fn content(&self, version: PolicyVersion) -> Option<Content> {
        self.known(version).ok().map(|manifest| manifest.content())
    }

    /// The manifest of a version, whether its folder is there or not.
    fn known(&self, version: PolicyVersion) -> Result<Manifest, Error> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&version).cloned().ok_or(Error::NotThere(version))
    }

    /// The folder of a version that can be served.
    pub fn folder(&self, version: PolicyVersion) -> Result<PathBuf, Error> {
        Ok(self.path(self.manifest(Some(version))?.version))
    }

    /// How a version that a learner offers compares with what was published. Refuses one of another run or model.
    pub fn compare(&self, manifest: &Manifest) -> Result<Compared, Error> {
        let version = manifest.version;
        if manifest.run_hash != self.run_hash {
            let (found, expected) = (manifest.run_hash.clone(), self.run_hash.clone());
            return Err(Error::OtherRun { version, found, expected });
        }
        if manifest.model_fingerprint != self.fingerprint {
            let (found, expected) = (manifest.model_fingerprint.clone(), self.fingerprint.clone());
            return Err(Error::OtherModel { version, found, expected });
        }
        Ok(match self.known.read().unwrap_or_else(PoisonError::into_inner).get(&version) {
            Some(known) if known.files == manifest.files => Compared::Same,
            Some(known) => Compared::Other(known.content()),
            None => Compared::New,
        })
    }

    /// Begins to take a version in, from nothing: what an earlier attempt left behind may end within a chunk.
    pub fn receiver(&self, manifest: &Manifest) -> Result<Receiver, Error> {
        let prefix = format!(".{}-", manifest.version.0);
        self.remove_folders(|name| name.starts_with(&prefix))?;
        Ok(Receiver::new(manifest.clone(), &self.path(manifest.version))?)
    }

    /// Notes a version whose folder was just written and whose manifest is stored.
    pub fn add(&self, manifest: Manifest) {
        self.trust(&manifest);
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(manifest.version, manifest);
    }

    /// Removes the folders that the schedule does not keep.
    pub fn prune(&self, schedule: &Schedule, latest: PolicyVersion) -> Result<(), Error> {
        self.remove_folders(|name| {
            name.parse().is_ok_and(|version| !schedule.keeps(PolicyVersion(version), latest))
        })
    }

    fn path(&self, version: PolicyVersion) -> PathBuf {
        self.root.join(version.0.to_string())
    }

    fn remove_folders(&self, goes: impl Fn(&str) -> bool) -> Result<(), Error> {
        let failed = |source| durable::Error::Read { path: self.root.clone(), source };
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if goes(&entry.file_name().to_string_lossy()) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}
