//! Drops a policy version of a stopped run, and all data that was sampled from it.
//!
//! The store is changed first, in one transaction. A crash after it leaves folders without a manifest, which
//! belong to no version and only use space.

use std::fs;
use std::path::{Path, PathBuf};

use podium_files::durable;
use podium_grpo::PolicyVersion;

use crate::reports::summary::FINISHED;
use crate::store::versions::{self, Dropped};
use crate::store::{self, Store};

/// The reasons why a version was not dropped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run is finished, so the version would not be recomputed.
    #[error("the run in {} is finished: no learner would recompute {version}", out.display())]
    Finished {
        /// The run's folder.
        out: PathBuf,
        /// The version.
        version: PolicyVersion,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The version cannot be dropped.
    #[error(transparent)]
    Version(#[from] versions::Error),
    /// A folder cannot be removed.
    #[error(transparent)]
    Folder(#[from] durable::Error),
}

/// Drops `version` and later versions of the run in `out`, whose coordinator must be stopped.
pub fn drop_version(out: &Path, version: PolicyVersion) -> Result<Dropped, Error> {
    let store = Store::open_existing(out)?;
    if out.join(FINISHED).exists() {
        return Err(Error::Finished { out: out.to_owned(), version });
    }
    let dropped = store.drop_version(version)?;
    remove_folders(&out.join("policy"), version)?;
    Ok(dropped)
}

/// Removes the folders of a version and of later ones.
fn remove_folders(root: &Path, from: PolicyVersion) -> Result<(), durable::Error> {
    let failed = |source| durable::Error::Write { path: root.to_owned(), source };
    if !root.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        if number.is_some_and(|number| number >= from.0) {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}
