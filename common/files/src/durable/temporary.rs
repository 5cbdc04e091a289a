//! Names of temporary files and folders: hidden, with the id of the process that writes them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::error::Error;

/// Suffix of temporary files and folders, after the id of the writing process.
const TEMPORARY: &str = ".tmp";

/// Returns a hidden name beside `path`, on the same file system, that contains the id of this
/// process.
pub(super) fn aside(path: &Path) -> Result<PathBuf, Error> {
    let nameless = || Error::Write { path: path.to_owned(), source: io::ErrorKind::InvalidFilename.into() };
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().ok_or_else(nameless)?);
    hidden.push(format!(".{}{TEMPORARY}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

/// Returns the target of a temporary name and the id of the process that writes it.
pub(super) fn writer(name: &str) -> Option<(&str, u32)> {
    let (written, id) = name.strip_prefix('.')?.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
    Some((written, id.parse().ok()?))
}
