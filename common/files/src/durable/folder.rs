//! Folders: creation, removal, and synchronisation with the disk.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::error::Error;

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

/// Makes a folder's entries durable: created and renamed entries survive a crash.
pub fn sync_folder(folder: &Path) -> Result<(), Error> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let synced = File::open(folder).and_then(|handle| handle.sync_all());
    synced.map_err(|source| Error::Write { path: folder.to_owned(), source })
}

/// Makes the content of a file durable.
pub fn sync_file(path: &Path) -> Result<(), Error> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Makes a folder and the folders below it durable, and all their files with `sync_file`.
pub(super) fn sync_tree(folder: &Path, sync_file: fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let failed = |source| Error::Write { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() { sync_tree(&path, sync_file)? } else { sync_file(&path)? }
    }
    sync_folder(folder)
}

/// Returns the folder of a path; `.` for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
