//! Removal of the temporary files of killed writers.

use std::fs;
use std::io;
use std::path::Path;

use super::error::Error;
use super::folder::{parent, remove_folder};
use super::temporary::writer;

/// Removes the temporary files and folders of killed writers in a folder and its subfolders, and logs and
/// returns their number. Those of processes that are alive on this host are retained. The owner of the folder
/// calls it at start-up.
pub fn remove_leftovers(folder: &Path) -> Result<usize, Error> {
    let removed = remove_in(folder, true, &is_leftover)?;
    if removed > 0 {
        tracing::info!("removed {removed} temporary files of killed processes from {}", folder.display());
    }
    Ok(removed)
}

/// Removes the temporary files of killed writers of `target`.
pub(super) fn remove_beside(target: &Path) -> Result<(), Error> {
    let own = target.file_name().unwrap_or_default().to_string_lossy();
    let of_target = |name: &str| writer(name).is_some_and(|(written, _)| written == own) && is_leftover(name);
    remove_in(parent(target), false, &of_target).map(|_| ())
}

fn remove_in(folder: &Path, below: bool, goes: &dyn Fn(&str) -> bool) -> Result<usize, Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(failed)?,
    };
    let mut removed = 0;
    for entry in entries {
        // An entry that is removed meanwhile is ignored.
        let Ok((kind, entry)) = entry.and_then(|entry| Ok((entry.file_type()?, entry))) else { continue };
        let (path, leftover) = (entry.path(), goes(&entry.file_name().to_string_lossy()));
        if kind.is_dir() && leftover {
            remove_folder(&path)?;
            removed += 1;
        } else if kind.is_dir() && below {
            removed += remove_in(&path, below, goes)?;
        } else if kind.is_file() && leftover {
            fs::remove_file(&path).map_err(|source| Error::Write { path, source })?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Returns whether a name belongs to a temporary file whose writer is not alive on this host. At start-up
/// this process has not written any, so one with its id belongs to an earlier process.
fn is_leftover(name: &str) -> bool {
    let Some((_, writer)) = writer(name) else { return false };
    let alive = |id: u32| Path::new("/proc").join(id.to_string()).exists();
    alive(std::process::id()) && (writer == std::process::id() || !alive(writer))
}
