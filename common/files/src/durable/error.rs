//! Errors of writes and reads, and the recognition of exhausted space among them.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

/// A failed write or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Writing failed; the previous file, if any, is unchanged.
    #[error("cannot write {}{}", path.display(), remedy(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::FileTooLarge => " (raise the limit of a file's size: ulimit -f)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (free space there or choose another folder with --out)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (choose a folder that can be written to with --out)"
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
