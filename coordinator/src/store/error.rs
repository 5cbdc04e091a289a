//! Why something could not be stored or read.

use std::path::PathBuf;

use super::tables::{FILE_NAME, FORMAT};

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No space is left. The same call succeeds once there is some.
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
        /// Why.
        source: Box<redb::Error>,
    },
    /// The folder is another run's.
    #[error("{} belongs to the run with hash {found}, this run file has hash {expected}: choose another folder with --out, or the run file that the folder was made with", folder.display())]
    OtherRun {
        /// The output folder.
        folder: PathBuf,
        /// The hash it was made with.
        found: String,
        /// The hash of the run file at hand.
        expected: String,
    },
    /// The folder holds no run.
    #[error("{} holds no run: there is no {FILE_NAME}", folder.display())]
    NoRun {
        /// The folder.
        folder: PathBuf,
    },
    /// The database was written by a build that stores things differently.
    #[error("{} has format {found}, this build reads format {FORMAT}: continue with the build that began the run, or choose another folder with --out", path.display())]
    Format {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: String,
    },
    /// An entry is not what it should be.
    #[error("{} is damaged: {what} cannot be read", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Which entry.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
