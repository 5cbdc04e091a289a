//! Weights in Hugging Face model folders: safetensors files, one or sharded, read and written tensor by tensor.
//!
//! Names, shapes and types of all tensors are checked before anything is allocated. Files are written beside their place
//! and moved there when they are safe on disk.

mod header;
mod read;
mod write;

use std::path::PathBuf;

pub use header::{Dtype, Error as HeaderError};
pub(crate) use read::{assign, read};
pub(crate) use write::write;

use crate::config;

/// Why weights cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder's configuration cannot be used.
    #[error("cannot use the model's configuration")]
    Config(#[from] config::Error),
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not a safetensors file, or a damaged one.
    #[error("{path} is not a valid safetensors file")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: HeaderError,
    },
    /// The index of a sharded checkpoint cannot be used.
    #[error("{path} is not an index of safetensors files")]
    Index {
        /// The file.
        path: PathBuf,
        /// What the parser stumbled over.
        source: serde_json::Error,
    },
    /// The index names a file that is not in the folder.
    #[error("{path} names the file {name:?}, expected the name of a file in its folder")]
    ShardName {
        /// The index.
        path: PathBuf,
        /// What it names.
        name: String,
    },
    /// A parameter of the policy is in no file.
    #[error("tensor {tensor} is missing from {path}, expected shape {expected:?}")]
    Missing {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<i64>,
    },
    /// A tensor is no parameter of the policy.
    #[error("{path} holds tensor {tensor}, which a model of this configuration does not have")]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is in two files.
    #[error("tensor {tensor} is in {path} and in another file of the checkpoint")]
    Twice {
        /// The second file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor {tensor} in {path} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<u64>,
        /// Its shape by the configuration.
        expected: Vec<i64>,
    },
    /// A weight is infinite or not a number.
    #[error("tensor {tensor} in {path} holds values that are not finite")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The folder holds a model of another shape or family.
    #[error("{path} is not a version of the policy: its configuration differs")]
    Architecture {
        /// The folder.
        path: PathBuf,
    },
}
