//! The database file, which is reopened after a disk error.
//!
//! redb refuses all further writes after a failed one. Reopening the file returns it to the last commit. A
//! temporarily full disk therefore fails only the calls of that time.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{DatabaseError, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::error::Error;

/// Largest memory of the database's cache of pages, in bytes. Groups are read soon after they were written, at most a few
/// times.
const CACHE_BYTES: usize = 256 << 20;

type Opener = Box<dyn Fn() -> Result<redb::Database, DatabaseError> + Send + Sync>;

pub(super) struct Database {
    path: PathBuf,
    open: Opener,
    /// `None` before the first use and after a disk error.
    handle: RwLock<Option<redb::Database>>,
}

/// Returns the options with which the database file is created or opened.
pub(super) fn options() -> redb::Builder {
    let mut options = redb::Builder::new();
    options.set_cache_size(CACHE_BYTES);
    options
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Database {
    /// Creates the database that `open` opens; `path` is its name in messages.
    pub(super) fn new(
        path: PathBuf,
        open: impl Fn() -> Result<redb::Database, DatabaseError> + Send + Sync + 'static,
    ) -> Self {
        Self { path, open: Box::new(open), handle: RwLock::new(None) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a consistent state.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        self.with(|database| work(&database.begin_read()?))
    }

    /// Writes atomically; the data is durable on return.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&redb::Database) -> Result<T, redb::Error>) -> Result<T, Error> {
        self.ensure_open()?;
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = handle.as_ref() else {
            // Another thread's error has closed the database since the line above.
            return Err(self.error(redb::Error::PreviousIo));
        };
        let result = work(database);
        drop(handle);
        result.map_err(|error| {
            if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::LockPoisoned(_)) {
                *self.handle.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
            self.error(error)
        })
    }

    fn ensure_open(&self) -> Result<(), Error> {
        if self.handle.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if handle.is_none() {
            let opened = (self.open)().map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => Error::InUse { path: self.path.clone() },
                other => self.error(other.into()),
            })?;
            *handle = Some(opened);
        }
        Ok(())
    }

    fn error(&self, error: redb::Error) -> Error {
        let (path, source) = (self.path.clone(), Box::new(error));
        match &*source {
            redb::Error::Io(io) if is_full(io.kind()) => Error::Full { path, source },
            _ => Error::Database { path, source },
        }
    }
}

const fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}
