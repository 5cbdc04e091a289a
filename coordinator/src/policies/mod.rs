//! The policy versions of a run: folders under `<out>/policy/`, with their manifests in the store.
//!
//! A version exists once its folder is complete and its manifest is stored. Manifests outlive folders that
//! are no longer needed, so that a learner that repeats old steps must reproduce the published content.
//! [`Policies::inspect`] detects a removed or damaged folder. Version 0 is then restored from `model.path`;
//! the learner recomputes other versions.

mod error;
mod inspection;
mod rebuilding;
mod stamps;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use podium_files::durable::{self, Durability};
use podium_grpo::PolicyVersion;
use podium_service::logs::describe;
use podium_transfer::link;
use podium_transfer::manifest::{self, Manifest};
use podium_transfer::receive::{self, Receiver};
use podium_transfer::{Base, Content};

use crate::machine::Schedule;
use crate::store::Store;
pub use error::Error;
use stamps::Inspected;
pub use start::Start;

/// The policy versions.
#[derive(Debug)]
pub struct Policies {
    root: PathBuf,
    run_hash: String,
    fingerprint: String,
    start: Start,
    known: RwLock<BTreeMap<PolicyVersion, Manifest>>,
    inspected: Mutex<BTreeMap<PolicyVersion, Inspected>>,
    /// Held while version 0 is restored.
    rebuilding: Mutex<()>,
}

/// Comparison of an offered version with the published version of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// No version of that number was published.
    New,
    /// It has the same content.
    Same,
    /// It has another content than the published one, which is given.
    Other(Content),
}

impl Policies {
    /// Opens the versions under `root`. Imports `start` as version 0 if there is none yet, and restores it if
    /// it is incomplete.
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

    /// Returns the fingerprint of the architecture and tokenizer of all versions.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns the manifest of a version that can be served, by default of the newest such version. Restores
    /// version 0 if it is missing.
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

    /// Returns the content of a version; `None` if it was never published, or was dropped.
    pub fn content(&self, version: PolicyVersion) -> Option<Content> {
        self.known(version).ok().map(|manifest| manifest.content())
    }

    /// Returns the manifest of a version, whether or not its folder exists.
    fn known(&self, version: PolicyVersion) -> Result<Manifest, Error> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&version).cloned().ok_or(Error::NotThere(version))
    }

    /// Returns the absolute path of a version's folder, if it can be represented in messages.
    pub fn origin(&self, version: PolicyVersion) -> Option<String> {
        Some(std::path::absolute(self.path(version)).ok()?.to_str()?.to_owned())
    }

    /// Returns the folder of a version that can be served.
    pub fn folder(&self, version: PolicyVersion) -> Result<PathBuf, Error> {
        Ok(self.path(self.manifest(Some(version))?.version))
    }

    /// Compares an offered version with the published one. Refuses a version of another run or model.
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

    /// Links the files of a version from a folder of this host, and those that have not changed from the folder of the
    /// version before. Earlier attempts to receive a version are removed.
    pub fn link(&self, manifest: &Manifest, from: &Path) -> Result<(), Error> {
        let before = manifest.version.0.checked_sub(1).map(PolicyVersion);
        let before = before.filter(|&before| self.inspect(before).is_ok());
        let before = before.and_then(|before| Some((self.known(before).ok()?, self.path(before))));
        let before = before.as_ref().map(|(manifest, folder)| (manifest, folder.as_path()));
        let linked = link::link(manifest, from, before, &self.path(manifest.version), Durability::Durable);
        linked.map_err(receive::Error::from)?;
        self.remove_parts(None)
    }

    /// Returns the folder of the base of a peer's deltas, if this version can be read here.
    pub fn base(&self, base: Base) -> Option<PathBuf> {
        let manifest = self.look(base.version).ok()?;
        (manifest.content() == base.content).then(|| self.path(base.version))
    }

    /// Starts to receive a version, or continues an earlier attempt at the same content. Attempts at other contents
    /// are removed.
    pub fn receiver(&self, manifest: &Manifest) -> Result<Receiver, Error> {
        let target = self.path(manifest.version);
        self.remove_parts(receive::partial_folder(manifest, &target).file_name())?;
        Ok(Receiver::new(manifest.clone(), &target, Durability::Durable)?)
    }

    /// Returns the number of bytes of each file that an earlier attempt at the same content has received.
    pub fn received(&self, manifest: &Manifest) -> Result<Vec<(String, u64)>, Error> {
        Ok(receive::received_before(manifest, &self.path(manifest.version))?)
    }

    /// Records a version whose folder was just written and whose manifest is stored.
    pub fn add(&self, manifest: Manifest) {
        self.trust(&manifest);
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(manifest.version, manifest);
    }

    /// Removes the folders that the schedule does not retain.
    pub fn prune(&self, schedule: &Schedule, latest: PolicyVersion) -> Result<(), Error> {
        self.remove_folders(|name| {
            name.parse().is_ok_and(|version| !schedule.keeps(PolicyVersion(version), latest))
        })
    }

    /// Removes the received parts of versions except `own`.
    fn remove_parts(&self, own: Option<&OsStr>) -> Result<(), Error> {
        self.remove_folders(|name| {
            let version = receive::partial_target(name).and_then(|version| version.parse::<u64>().ok());
            version.is_some() && name != start::IMPORT && own.is_none_or(|own| own != name)
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
