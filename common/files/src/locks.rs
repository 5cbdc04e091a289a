//! Locks of numbered resources among the processes of a host.
//!
//! Lock `n` is byte `n` of one lock file, which stays empty. The system releases a process's locks when it ends, also by
//! SIGKILL.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::durable::Error;

/// Largest number of a lock.
pub const LAST: u64 = (1 << 62) - 1;

/// The locks of one lock file.
#[derive(Debug, Clone)]
pub struct Locks {
    file: Arc<File>,
    path: PathBuf,
}

/// Kind of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Held by any number of processes at once.
    Shared,
    /// Held by one process.
    Exclusive,
}

/// A held lock, which is released when dropped.
#[derive(Debug)]
pub struct Lock {
    file: Arc<File>,
    number: u64,
}

impl Locks {
    /// Opens the lock file, which is created if necessary.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(Self { file: Arc::new(file), path: path.to_owned() })
    }

    /// Takes lock `number`, at most [`LAST`]; returns `None` if another process holds it. The locks of one [`Locks`]
    /// and its clones do not exclude each other.
    pub fn try_lock(&self, number: u64, kind: Kind) -> Result<Option<Lock>, Error> {
        let kind = match kind {
            Kind::Shared => libc::F_RDLCK,
            Kind::Exclusive => libc::F_WRLCK,
        };
        match set(&self.file, number, kind) {
            Ok(()) => Ok(Some(Lock { file: self.file.clone(), number })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(Error::Write { path: self.path.clone(), source: io::Error::from(error) }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Fails only for a closed file.
        let _ = set(&self.file, self.number, libc::F_UNLCK);
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "constants, and numbers up to LAST"
)]
fn set(file: &File, number: u64, kind: libc::c_int) -> nix::Result<()> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: number.min(LAST) as libc::off_t,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_exclude_other_processes_until_they_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".locks");
        // Two openings of the file behave like two processes.
        let (one, other) = (Locks::open(&path).unwrap(), Locks::open(&path).unwrap());
        let shared = one.try_lock(7, Kind::Shared).unwrap().unwrap();
        assert!(other.try_lock(7, Kind::Exclusive).unwrap().is_none());
        assert!(other.try_lock(8, Kind::Exclusive).unwrap().is_some());
        drop(other.try_lock(7, Kind::Shared).unwrap().unwrap());
        drop(shared);
        let exclusive = other.try_lock(7, Kind::Exclusive).unwrap().unwrap();
        assert!(one.try_lock(7, Kind::Shared).unwrap().is_none());
        drop(exclusive);
        assert!(one.try_lock(LAST, Kind::Shared).unwrap().is_some());
    }

    #[test]
    fn a_lock_file_that_cannot_be_opened_is_named() {
        let error = Locks::open(Path::new("/nowhere/.locks")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/.locks"), "{error}");
    }
}
