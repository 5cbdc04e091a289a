//! Atomic and durable writes of files.

use std::error::Error as StdError;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Suffix of temporary files' names, after the id of the writing process.
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

/// Removes the temporary files of killed writers in a folder and its subfolders, logs their number and returns it.
/// Files of running processes of this host are retained. The owner of the folder calls it at its start.
pub fn remove_leftovers(folder: &Path) -> Result<usize, Error> {
    let removed = remove_leftovers_in(folder)?;
    if removed > 0 {
        tracing::info!("removed {removed} temporary files of killed processes from {}", folder.display());
    }
    Ok(removed)
}

fn remove_leftovers_in(folder: &Path) -> Result<usize, Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(failed)?,
    };
    let mut removed = 0;
    for entry in entries {
        // An entry that disappears meanwhile is skipped.
        let Ok((kind, entry)) = entry.and_then(|entry| Ok((entry.file_type()?, entry))) else { continue };
        if kind.is_dir() {
            removed += remove_leftovers_in(&entry.path())?;
        } else if kind.is_file() && is_leftover(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| Error::Write { path, source })?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Suffixes of temporary files: those of this module, and those of partial model files.
const LEFTOVERS: [&str; 2] = [TEMPORARY, ".part"];

/// Whether a name is that of a temporary file whose writer does not run on this host. At its start this process has
/// written none, so that a file with its id is from an earlier process.
fn is_leftover(name: &str) -> bool {
    let stem = LEFTOVERS.iter().find_map(|end| name.strip_prefix('.')?.strip_suffix(end));
    let writer = stem.and_then(|stem| stem.rsplit_once('.')?.1.parse::<u32>().ok());
    let Some(writer) = writer else { return false };
    let alive = |id: u32| Path::new("/proc").join(id.to_string()).exists();
    alive(std::process::id()) && (writer == std::process::id() || !alive(writer))
}

/// Writes `bytes` to `path`: a temporary file in the same folder, fsync, rename, fsync of the folder.
///
/// After a crash at any time the file has the old content or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_with(path, |file| file.write_all(bytes))
}

/// The same for content that is generated during the write.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}{TEMPORARY}", std::process::id()));
    let temporary = path.with_file_name(hidden);
    let result = File::create(&temporary)
        .and_then(|mut file| {
            fill(&mut file)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = result {
        // The write's own error is reported; a temporary file that cannot be removed is harmless.
        let _ = fs::remove_file(&temporary);
        return Err(failed(source));
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes a folder's entries durable: created and renamed entries survive a crash.
pub fn sync_folder(folder: &Path) -> Result<(), Error> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let synced = File::open(folder).and_then(|handle| handle.sync_all());
    synced.map_err(|source| Error::Write { path: folder.to_owned(), source })
}

/// Creates a folder and its parents.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_atomically() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        write(&path, b"old").unwrap();
        write_with(&path, |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file remains");
    }

    #[test]
    fn a_full_disk_is_reported_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            write_with(&folder.path().join("x"), |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert!(error.to_string().contains("free space"));
    }

    #[test]
    fn a_full_disk_is_detected_among_causes() {
        let folder = tempfile::tempdir().unwrap();
        for (kind, full) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::FileTooLarge, true),
            (io::ErrorKind::PermissionDenied, false),
        ] {
            let error = write_with(&folder.path().join("x"), |_| Err(kind.into())).unwrap_err();
            assert_eq!(is_full(&error), full, "{error}");
        }
    }

    #[test]
    fn temporary_files_of_dead_processes_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        fs::create_dir(&below).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let (dead, alive) =
            (format!(".a.json.{dead}.tmp"), format!(".a.json.{}.tmp", std::os::unix::process::parent_id()));
        let names = [dead.as_str(), &alive, ".a.json.x.tmp", "a.json.1.tmp", ".lock"];
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::write(below.join(&dead), "").unwrap();
        assert_eq!(remove_leftovers(folder.path()).unwrap(), 2);
        assert_eq!(remove_leftovers(folder.path()).unwrap(), 0);
        assert!(
            names[1..].iter().all(|name| folder.path().join(name).exists()) && !below.join(&dead).exists()
        );
        assert_eq!(remove_leftovers(&folder.path().join("nowhere")).unwrap(), 0);
    }

    #[test]
    fn checksums_are_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        write(&path, b"abc").unwrap();
        assert_eq!(hex(&sha256(&path).unwrap())[..16], *"ba7816bf8f01cfea");
    }
}
