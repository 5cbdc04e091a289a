//! Files and folders that are replaced whole or not at all.
//!
//! Everything of Podium that renames comes here: [`replace`] puts a new file into the place of another, [`publish_folder`]
//! a folder. Both write aside, fsync, rename and fsync the parent, so that a crash at any time leaves the old content or
//! the new one. What a killed process leaves aside is hidden and carries its process id; [`remove_leftovers`] removes it.

#[cfg(test)]
mod killed;
mod leftovers;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use sha2::{Digest, Sha256};

pub use leftovers::remove_leftovers;

/// How names of temporary files and folders end, after the id of the process that writes.
const TEMPORARY: &str = ".tmp";

/// A failed write or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Writing failed; the previous file, if any, is unchanged.
    #[error("cannot write {}: {source}{}", path.display(), remedy(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::FileTooLarge => "; raise the limit of a file's size (ulimit -f)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space there or choose another folder with --out"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a folder that can be written to with --out"
        }
        _ => "",
    }
}

/// Whether an error, or one of its causes, reports that a file system, a quota or a file is full. The same write
/// succeeds once there is free space.
pub fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| is_full_kind(error.kind())))
}

/// Whether a kind of error reports it.
pub const fn is_full_kind(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Writes `bytes` to `path`, as [`replace`] does.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes a file whose content is produced while it is written, as [`replace`] does.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    replace(path, |file| fill(file).map_err(|source| Error::Write { path: path.to_owned(), source }))
}

/// Replaces the file `path`, or makes it: `fill` writes a temporary file beside it, which is synced and renamed; then the
/// folder is synced. A crash at any time leaves the old file or the new one.
///
/// # Errors
/// Those of `fill`, and [`Error::Write`]. The old file is untouched, and no temporary file is left.
pub fn replace<E: From<Error>>(path: &Path, fill: impl FnOnce(&mut File) -> Result<(), E>) -> Result<(), E> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let temporary = aside(path)?;
    let write = || -> Result<(), E> {
        let mut file = File::create(&temporary).map_err(failed)?;
        step();
        fill(&mut file)?;
        step();
        file.sync_all().map_err(failed)?;
        step();
        Ok(fs::rename(&temporary, path).map_err(failed)?)
    };
    write().inspect_err(|_| {
        // The disk may be full: make room for others. The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    })?;
    step();
    Ok(sync_folder(parent(path))?)
}

/// Makes the folder `target`, which is absent or empty, with all that `fill` puts into it: a temporary folder beside it is
/// filled and published by [`publish_folder`]. A crash at any time leaves no folder or the whole one.
///
/// # Errors
/// Those of `fill`, and [`Error::Write`]; of the kind `DirectoryNotEmpty` if `target` holds anything. No temporary folder is
/// left.
pub fn new_folder<E: From<Error>>(target: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let require_empty = || {
        let occupied = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
        let source = io::ErrorKind::DirectoryNotEmpty.into();
        if occupied { Err(Error::Write { path: target.to_owned(), source }) } else { Ok(()) }
    };
    // Checked again afterwards, but refused before the work.
    require_empty()?;
    let staging = aside(target)?;
    leftovers::remove_beside(target)?;
    remove_folder(&staging)?;
    let make = || -> Result<(), E> {
        create_folder(&staging)?;
        step();
        fill(&staging)?;
        step();
        require_empty()?;
        Ok(publish_folder(&staging, target)?)
    };
    make().inspect_err(|_| {
        let _ = remove_folder(&staging);
    })
}

/// Publishes the complete folder `staging` as `target`, in the same parent folder: everything in it is synced, it takes the
/// name in one step, and the parent is synced. A folder that had the name is removed. A crash at any time leaves the
/// old folder or the new one under the name.
///
/// On file systems that cannot exchange two names (some network file systems), a folder that had the name is removed
/// first: a crash in between leaves none, and `staging` is complete.
///
/// # Errors
/// [`Error::Write`].
pub fn publish_folder(staging: &Path, target: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: target.to_owned(), source };
    sync_tree(staging)?;
    step();
    let replaced = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
    let exchange = RenameFlags::RENAME_EXCHANGE;
    if replaced && renameat2(AT_FDCWD, staging, AT_FDCWD, target, exchange).is_ok() {
        step();
        sync_folder(parent(target))?;
        step();
        // It holds the old content by now.
        return remove_folder(staging);
    }
    if replaced {
        remove_folder(target)?;
    }
    fs::rename(staging, target).map_err(failed)?;
    step();
    sync_folder(parent(target))
}

/// Makes a folder's entries durable: created and renamed entries survive a crash.
pub fn sync_folder(folder: &Path) -> Result<(), Error> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let synced = File::open(folder).and_then(|handle| handle.sync_all());
    synced.map_err(|source| Error::Write { path: folder.to_owned(), source })
}

/// Makes a folder, the folders below it and all their files durable.
fn sync_tree(folder: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() { sync_tree(&path)? } else { sync_folder(&path)? }
    }
    sync_folder(folder)
}

/// A hidden name beside `path`, and so on the same file system, that names this process.
fn aside(path: &Path) -> Result<PathBuf, Error> {
    let nameless = || Error::Write { path: path.to_owned(), source: io::ErrorKind::InvalidFilename.into() };
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().ok_or_else(nameless)?);
    hidden.push(format!(".{}{TEMPORARY}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A point between two operations, at which tests end the process.
#[cfg(test)]
fn step() {
    killed::step();
}

#[cfg(not(test))]
const fn step() {}

/// Removes a folder with all that is in it, if it is there.
pub fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Write { path: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Makes a folder and those above it.
pub fn create_folder(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })
}

/// SHA-256 of a file's content.
pub fn sha256(path: &Path) -> Result<[u8; 32], Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut digest = Sha256::new();
    io::copy(&mut File::open(path).map_err(failed)?, &mut digest).map_err(failed)?;
    Ok(digest.finalize().into())
}

/// Bytes as lower-case hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
