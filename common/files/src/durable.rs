//! Atomic and durable replacement of files and folders.
//!
//! All renames in Podium use this module: [`replace`] replaces a file, [`publish_folder`] a folder.
//! [`create_private`] creates a file that only its owner can read.
//! Both write to a temporary name, fsync, rename, and fsync the parent folder, so that a crash at
//! any time leaves the old content or the new content. The temporary files of a killed process are
//! hidden, and their names contain its process id; [`remove_leftovers`] removes them.

mod checksum;
mod error;
mod folder;
#[cfg(test)]
mod killed;
mod leftovers;
mod private;
mod temporary;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use folder::{parent, sync_tree};
use temporary::aside;

pub use checksum::{hex, sha256, sha256_so_far};
pub use error::{Error, is_full, is_full_kind};
pub use folder::{create_folder, remove_folder, sync_file, sync_folder};
pub use leftovers::remove_leftovers;
pub use private::create_private;

/// Persistence of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Files survive a power failure.
    Durable,
    /// Files are not synced: they can be made or received again, and are verified before use.
    Cached,
}

/// Writes `bytes` to `path`, as [`replace`] does.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes `bytes` to `path`, as [`replace_as`] does.
pub fn write_as(path: &Path, durability: Durability, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    replace_as(path, durability, |file| file.write_all(bytes).map_err(failed))
}

/// Writes a file with content that `fill` produces, as [`replace`] does.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    replace(path, |file| fill(file).map_err(|source| Error::Write { path: path.to_owned(), source }))
}

/// Replaces or creates the file `path`: `fill` writes a temporary file beside it, which is synced
/// and renamed; then the folder is synced. A crash at any time leaves the old file or the new one.
///
/// # Errors
///
/// Errors of `fill`, and [`Error::Write`]. The old file is unchanged, and the temporary file is
/// removed.
pub fn replace<E: From<Error>>(path: &Path, fill: impl FnOnce(&mut File) -> Result<(), E>) -> Result<(), E> {
    replace_as(path, Durability::Durable, fill)
}

/// Replaces or creates the file `path` as [`replace`] does. A cached file is not synced: after a power failure it may be
/// damaged.
///
/// # Errors
///
/// As for [`replace`].
pub fn replace_as<E: From<Error>>(
    path: &Path,
    durability: Durability,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let is_durable = durability == Durability::Durable;
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let temporary = aside(path)?;
    let write = || -> Result<(), E> {
        let mut file = File::create(&temporary).map_err(failed)?;
        step();
        fill(&mut file)?;
        step();
        if is_durable {
            file.sync_all().map_err(failed)?;
        }
        step();
        Ok(fs::rename(&temporary, path).map_err(failed)?)
    };
    write().inspect_err(|_| {
        // The disk may be full, so the space is freed. The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    })?;
    step();
    if is_durable {
        sync_folder(parent(path))?;
    }
    Ok(())
}

/// Creates the folder `target`, which must be absent or empty: `fill` fills a temporary folder
/// beside it, which [`publish_folder`] publishes. A crash at any time leaves no folder or the
/// complete one.
///
/// # Errors
///
/// Errors of `fill`, and [`Error::Write`], whose kind is `DirectoryNotEmpty` if `target` is not
/// empty. The temporary folder is removed.
pub fn new_folder<E: From<Error>>(target: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let require_empty = || {
        let occupied = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
        let source = io::ErrorKind::DirectoryNotEmpty.into();
        if occupied { Err(Error::Write { path: target.to_owned(), source }) } else { Ok(()) }
    };
    // Checked before the work to fail early, and again after it.
    require_empty()?;
    replace_folder(target, fill, |staging, target| {
        require_empty()?;
        publish_folder(staging, target)
    })
}

/// Creates or replaces the folder `target`: `fill` fills a temporary folder beside it, which `publish` publishes:
/// [`publish_folder`] or [`publish_cached_folder`].
///
/// # Errors
///
/// Errors of `fill` and `publish`, and [`Error::Write`]. The temporary folder is removed.
pub fn replace_folder<E: From<Error>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
    publish: impl FnOnce(&Path, &Path) -> Result<(), Error>,
) -> Result<(), E> {
    let staging = aside(target)?;
    leftovers::remove_beside(target)?;
    remove_folder(&staging)?;
    let make = || -> Result<(), E> {
        create_folder(&staging)?;
        step();
        fill(&staging)?;
        step();
        Ok(publish(&staging, target)?)
    };
    make().inspect_err(|_| {
        let _ = remove_folder(&staging);
    })
}

/// Publishes the complete folder `staging` as `target` in the same parent folder. Syncs everything
/// in it, gives it the name in one step, and syncs the parent. A previous folder of that name is
/// removed. A crash at any time leaves the old folder or the new one under the name.
///
/// Some network file systems cannot exchange two names. There a previous folder is removed first: a
/// crash in between leaves no folder of that name, and `staging` is complete.
///
/// # Errors
///
/// [`Error::Write`].
pub fn publish_folder(staging: &Path, target: &Path) -> Result<(), Error> {
    sync_tree(staging, sync_file)?;
    step();
    put_folder(staging, target, sync_folder)
}

/// Publishes the complete folder `staging` as [`publish_folder`] does. Its files are durable already: only folders are
/// synced.
///
/// # Errors
///
/// [`Error::Write`].
pub fn publish_folder_of_synced_files(staging: &Path, target: &Path) -> Result<(), Error> {
    sync_tree(staging, |_| Ok(()))?;
    step();
    put_folder(staging, target, sync_folder)
}

/// Publishes the complete folder `staging` as [`publish_folder`] does, but syncs nothing: for content that can be
/// downloaded again and is verified before use. A power failure may leave damaged files under the name.
///
/// # Errors
///
/// [`Error::Write`].
pub fn publish_cached_folder(staging: &Path, target: &Path) -> Result<(), Error> {
    put_folder(staging, target, |_| Ok(()))
}

/// Gives `staging` the name `target`; `sync` makes the entries of their parent folder durable.
fn put_folder(staging: &Path, target: &Path, sync: fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let failed = |source| Error::Write { path: target.to_owned(), source };
    let replaced = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
    let exchange = RenameFlags::RENAME_EXCHANGE;
    if replaced && renameat2(AT_FDCWD, staging, AT_FDCWD, target, exchange).is_ok() {
        step();
        sync(parent(target))?;
        step();
        // After the exchange, `staging` holds the old content.
        return remove_folder(staging);
    }
    if replaced {
        remove_folder(target)?;
    }
    fs::rename(staging, target).map_err(failed)?;
    step();
    sync(parent(target))
}

/// Marks a point between two operations. Tests end the process at such points.
#[cfg(test)]
fn step() {
    killed::step();
}

#[cfg(not(test))]
const fn step() {}
