//! The folder in which rank 0 writes new versions for publication. The last version that was sent to the coordinator
//! remains as the base of the next one's deltas.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_transfer::publish::Outcome;
use podium_transfer::{LocalBase, Manifest};

/// The outgoing versions: one folder for each, named after its number.
#[derive(Debug)]
pub(super) struct Outgoing {
    folder: PathBuf,
    /// Whether versions are published as deltas.
    deltas: bool,
    base: Mutex<Option<LocalBase>>,
}

impl Outgoing {
    /// Empties `folder`. With `deltas`, the first base is `start`, version 0.
    pub(super) fn open(folder: PathBuf, start: LocalBase, deltas: bool) -> Result<Self, durable::Error> {
        durable::remove_folder(&folder)?;
        Ok(Self { folder, deltas, base: Mutex::new(deltas.then_some(start)) })
    }

    /// Returns the folder of a version.
    pub(super) fn folder(&self, version: PolicyVersion) -> PathBuf {
        self.folder.join(version.0.to_string())
    }

    /// Removes all versions except the base, which is replaced if it has this number.
    pub(super) fn prepare(&self, version: PolicyVersion) -> Result<(), durable::Error> {
        let folder = self.folder(version);
        let retained = {
            let mut base = self.locked();
            base.take_if(|base| base.folder == folder);
            base.as_ref().map(|base| base.folder.clone())
        };
        let failed = |source| durable::Error::Read { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if retained.as_ref() != Some(&path) {
                durable::remove_folder(&path)?;
            }
        }
        Ok(())
    }

    /// Returns the base for a version.
    pub(super) fn base(&self, version: PolicyVersion) -> Option<LocalBase> {
        self.locked().clone().filter(|local| local.base.version != version)
    }

    /// Makes a published version the base of the next one, unless its files are shared by links.
    pub(super) fn published(&self, manifest: &Manifest, folder: &Path, outcome: Outcome) {
        let base = (self.deltas && outcome != Outcome::Linked).then(|| LocalBase::new(manifest, folder));
        *self.locked() = base;
    }

    /// Gives up the base, so that [`Self::prepare`] frees its disk space.
    pub(super) fn release(&self) {
        *self.locked() = None;
    }

    fn locked(&self) -> MutexGuard<'_, Option<LocalBase>> {
        // A panic cannot leave the value inconsistent: it is only read or replaced.
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use podium_transfer::manifest;

    use super::*;

    #[test]
    fn the_base_remains_until_it_is_replaced_or_linked_or_its_space_is_needed() {
        let (state, start) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(start.path().join("config.json"), "0").unwrap();
        let describe = |folder: &Path, version| {
            manifest::describe(folder, PolicyVersion(version), "cafe", "f00d").unwrap()
        };
        let base = LocalBase::new(&describe(start.path(), 0), start.path());
        let outgoing = Outgoing::open(state.path().join("outgoing"), base.clone(), true).unwrap();
        assert_eq!(outgoing.base(PolicyVersion(1)), Some(base));
        assert_eq!(outgoing.base(PolicyVersion::START), None, "a version is no base of itself");
        let publish = |version: u64, outcome| {
            let folder = outgoing.folder(PolicyVersion(version));
            outgoing.prepare(PolicyVersion(version)).unwrap();
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("config.json"), version.to_string()).unwrap();
            outgoing.published(&describe(&folder, version), &folder, outcome);
            outgoing.base(PolicyVersion(version + 1)).map(|local| local.base.version.0)
        };
        let exists = |version| outgoing.folder(PolicyVersion(version)).exists();
        assert_eq!(publish(1, Outcome::Sent), Some(1));
        assert_eq!(publish(2, Outcome::Sent), Some(2));
        assert!(exists(1) && exists(2));
        assert_eq!(publish(3, Outcome::Unneeded), Some(3));
        assert!(!exists(1) && exists(2));
        outgoing.prepare(PolicyVersion(3)).unwrap();
        assert_eq!(outgoing.base(PolicyVersion(4)), None, "it is written again");
        assert_eq!(publish(4, Outcome::Linked), None);
        assert_eq!(publish(5, Outcome::Sent), Some(5));
        outgoing.release();
        outgoing.prepare(PolicyVersion(6)).unwrap();
        assert!(!exists(5) && start.path().exists());
    }
}
