//! Atomic and durable replacement of files and folders.
//!
//! All renames in Podium use this module: [`replace`] replaces a file, [`publish_folder`] a folder.
//! Both write to a temporary name, fsync, rename, and fsync the parent folder, so that a crash at
//! any time leaves the old content or the new content. The temporary files of a killed process are
//! hidden, and their names contain its process id; [`remove_leftovers`] removes them.

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

/// Suffix of temporary files and folders, after the id of the writing process.
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

/// Returns whether an error, or one of its causes, reports a full file system, an exhausted quota
/// or a file at its maximum size. The same write succeeds once there is free space.
pub fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| is_full_kind(error.kind())))
}

/// Returns whether errors of this kind report exhausted space.
pub const fn is_full_kind(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Writes `bytes` to `path`, as [`replace`] does.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_with(path, |file| file.write_all(bytes))
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
        // The disk may be full, so the space is freed. The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    })?;
    step();
    Ok(sync_folder(parent(path))?)
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
    let failed = |source| Error::Write { path: target.to_owned(), source };
    sync_tree(staging)?;
    step();
    let replaced = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
    let exchange = RenameFlags::RENAME_EXCHANGE;
    if replaced && renameat2(AT_FDCWD, staging, AT_FDCWD, target, exchange).is_ok() {
        step();
        sync_folder(parent(target))?;
        step();
        // After the exchange, `staging` holds the old content.
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

/// Returns a hidden name beside `path`, on the same file system, that contains the id of this
/// process.
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

/// Marks a point between two operations. Tests end the process at such points.
#[cfg(test)]
fn step() {
    killed::step();
}

#[cfg(not(test))]
const fn step() {}

/// Removes a folder and its content, if it exists.
pub fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Write { path: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Creates a folder and its parent folders.
pub fn create_folder(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })
}

/// Returns the SHA-256 of a file's content.
pub fn sha256(path: &Path) -> Result<[u8; 32], Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut digest = Sha256::new();
    io::copy(&mut File::open(path).map_err(failed)?, &mut digest).map_err(failed)?;
    Ok(digest.finalize().into())
}

/// Returns bytes as lower-case hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
