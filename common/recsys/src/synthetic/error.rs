//! Errors of the embedded data set.

use std::path::PathBuf;

use crate::dataset;

/// An error while generating or reading the embedded data set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An invalid value in the description of the world.
    #[error("`world.{field}` is {found}, expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        found: f64,
        /// The permitted values.
        expected: &'static str,
    },
    /// A file cannot be written.
    #[error("cannot write the embedded data set")]
    Write(#[from] dataset::Error),
    /// The folder cannot be created.
    #[error("cannot create {}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The description of the world cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The description of the world is malformed.
    #[error("{}: expected the description of an embedded data set", .path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Error of the parser.
        source: serde_json::Error,
    },
}
