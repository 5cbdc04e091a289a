//! Files that are there whole or not at all.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A file that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Writing failed; the file that was there before, if any, is untouched.
    #[error("cannot write {}: {source}{}", path.display(), remedy(source))]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull => "; free space there or choose another folder with --out",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a folder that can be written to with --out"
        }
        _ => "",
    }
}

/// Writes `bytes` to `path`: a temporary file beside it, fsync, rename, fsync of the folder.
///
/// A crash at any moment leaves the old content or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_with(path, |file| file.write_all(bytes))
}

/// The same for content that is produced while it is written.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
    let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let result = File::create(&temporary)
        .and_then(|mut file| {
            fill(&mut file)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = result {
        // The write's own error is the one to report; a file that cannot be removed either does no harm.
        let _ = fs::remove_file(&temporary);
        return Err(failed(source));
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes a folder's entries durable: what was created or renamed in it stays after a crash.
pub fn sync_folder(folder: &Path) -> Result<(), Error> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let synced = File::open(folder).and_then(|handle| handle.sync_all());
    synced.map_err(|source| Error::Write { path: folder.to_owned(), source })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        write(&path, b"old").unwrap();
        write_with(&path, |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_full_disk_is_named_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            write_with(&folder.path().join("x"), |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert!(error.to_string().contains("free space"));
    }

    #[test]
    fn checksums_are_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        write(&path, b"abc").unwrap();
        assert_eq!(hex(&sha256(&path).unwrap())[..16], *"ba7816bf8f01cfea");
    }
}
