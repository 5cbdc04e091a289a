//! Git LFS pointers: short text files in place of large files that were not downloaded.

use std::path::{Path, PathBuf};

/// The first line of every pointer, by the specification of Git LFS.
const FIRST_LINE: &[u8] = b"version https://git-lfs.github.com/spec/";

/// A file that is a pointer.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} is a Git LFS pointer; the file itself was not downloaded: run `git lfs install` and `git lfs \
     pull` in its folder"
)]
pub struct Pointer {
    /// The file.
    pub path: PathBuf,
}

/// Fails if the content is a pointer.
pub fn refuse(content: &[u8], path: &Path) -> Result<(), Pointer> {
    if content.starts_with(FIRST_LINE) { Err(Pointer { path: path.to_owned() }) } else { Ok(()) }
}
