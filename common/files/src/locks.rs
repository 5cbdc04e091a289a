//! Locks of numbered resources among the processes of a host.
//!
//! Lock `n` is byte `n` of one lock file, which stays empty. The system releases a process's locks when it ends, also by
//! SIGKILL.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::durable::Error;

/// Largest number of a lock.
pub const LAST: u64 = (1 << 62) - 1;

/// The locks of one lock file.
#[derive(Debug, Clone)]
pub struct Locks(Arc<Opened>);

/// An open lock file. The system counts it as one holder of each lock, so that its own holders are counted here.
#[derive(Debug)]
struct Opened {
    file: File,
    path: PathBuf,
    holders: Mutex<BTreeMap<u64, (Kind, usize)>>,
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
    opened: Arc<Opened>,
    number: u64,
}

impl Locks {
    /// Opens the lock file, which is created if necessary.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(Self(Arc::new(Opened { file, path: path.to_owned(), holders: Mutex::default() })))
    }

    /// Takes lock `number`, at most [`LAST`]; returns `None` if it is held, unless both holders share it.
    pub fn try_lock(&self, number: u64, kind: Kind) -> Result<Option<Lock>, Error> {
        let opened = &self.0;
        let mut holders = opened.holders();
        match holders.get_mut(&number) {
            Some((Kind::Shared, count)) if kind == Kind::Shared => *count += 1,
            Some(_) => return Ok(None),
            None => {
                match set(&opened.file, number, kind.code()) {
                    Ok(()) => {}
                    Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
                    Err(error) => {
                        let source = io::Error::from(error);
                        return Err(Error::Write { path: opened.path.clone(), source });
                    }
                }
                holders.insert(number, (kind, 1));
            }
        }
        Ok(Some(Lock { opened: opened.clone(), number }))
    }
}

impl Kind {
    const fn code(self) -> libc::c_int {
        match self {
            Self::Shared => libc::F_RDLCK,
            Self::Exclusive => libc::F_WRLCK,
        }
    }
}

impl Opened {
    fn holders(&self) -> MutexGuard<'_, BTreeMap<u64, (Kind, usize)>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut holders = self.opened.holders();
        match holders.get_mut(&self.number) {
            Some((_, count)) if *count > 1 => *count -= 1,
            _ => {
                holders.remove(&self.number);
                // Fails only for a closed file.
                let _ = set(&self.opened.file, self.number, libc::F_UNLCK);
            }
        }
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
    fn a_lock_is_held_until_its_last_holder_drops_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".locks");
        let (one, other) = (Locks::open(&path).unwrap(), Locks::open(&path).unwrap());
        let first = one.try_lock(7, Kind::Shared).unwrap().unwrap();
        let second = one.clone().try_lock(7, Kind::Shared).unwrap().unwrap();
        assert!(one.try_lock(7, Kind::Exclusive).unwrap().is_none());
        drop(first);
        assert!(other.try_lock(7, Kind::Exclusive).unwrap().is_none());
        drop(second);
        let exclusive = other.try_lock(7, Kind::Exclusive).unwrap().unwrap();
        assert!(other.try_lock(7, Kind::Shared).unwrap().is_none());
        drop(exclusive);
        assert!(one.try_lock(7, Kind::Exclusive).unwrap().is_some());
    }

    #[test]
    fn a_lock_file_that_cannot_be_opened_is_named() {
        let error = Locks::open(Path::new("/nowhere/.locks")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/.locks"), "{error}");
    }
}
