//! Creation of files that only their owner can read.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::Error;
use super::folder::{parent, sync_folder};
use super::temporary::aside;

/// Mode of the files: readable and writable by the owner alone.
const MODE: u32 = 0o600;

/// Creates the file `path` with mode 0600, unless it exists, and returns whether it was created. Of several processes
/// exactly one creates it, and no process sees a part of it. The file system must support hard links.
///
/// # Errors
///
/// [`Error::Write`]. No file remains.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<bool, Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let temporary = aside(path)?;
    let mut file =
        File::options().write(true).create_new(true).mode(MODE).open(&temporary).map_err(failed)?;
    let mut create = || {
        file.write_all(bytes)?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces a file.
        match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            linked => linked.map(|()| true),
        }
    };
    let created = create().map_err(failed);
    let _ = fs::remove_file(&temporary);
    let created = created?;
    sync_folder(parent(path))?;
    Ok(created)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_created_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private");
        assert!(create_private(&path, b"first").unwrap());
        assert!(!create_private(&path, b"second").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file remains");
        let missing = create_private(&folder.path().join("no/folder"), b"x").unwrap_err().to_string();
        assert!(missing.contains("no/folder"), "{missing}");
    }
}
