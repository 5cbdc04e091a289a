//! Errors of the store.

use std::path::PathBuf;

use super::tables::{FILE_NAME, FORMAT};

/// The reasons why data could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No space is left. The same call succeeds once there is free space.
    #[error("no space is left for {}: free some, and the run continues", path.display())]
    Full {
        /// The database.
        path: PathBuf,
        /// The error of the system.
        source: Box<redb::Error>,
    },
    /// Another process has the database open.
    #[error("{} is in use by another coordinator: stop it, or choose another folder with --out", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The database failed.
    #[error("cannot use {}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// The cause.
        source: Box<redb::Error>,
    },
    /// The folder belongs to another run.
    #[error("{} belongs to the run with hash {found}, this run file has hash {expected}: choose another folder with --out, or the run file that created the folder", folder.display())]
    OtherRun {
        /// The output folder.
        folder: PathBuf,
        /// The run hash of the folder.
        found: String,
        /// The hash of the current run file.
        expected: String,
    },
    /// The folder does not contain a run.
    #[error("{} holds no run: there is no {FILE_NAME}", folder.display())]
    NoRun {
        /// The folder.
        folder: PathBuf,
    },
    /// The database was written by a build with another format.
    #[error("{} has format {found}, this build reads format {FORMAT}: continue with the build that began the run, or choose another folder with --out", path.display())]
    Format {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: String,
    },
    /// An entry is damaged.
    #[error("{} is damaged: {what} cannot be read", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The entry.
        what: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
