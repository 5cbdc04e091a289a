//! The errors of model and adapter files.

use std::io;
use std::path::{Path, PathBuf};

use podium_files::durable;

use crate::field_error::FieldError;
use crate::{config, header, lfs};

/// The reasons why weights cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder's configuration is invalid.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// An adapter does not fit the model.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// An operation of the operating system failed.
    #[error("cannot {action} {path}")]
    File {
        /// The failed action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] durable::Error),
    /// A file is a Git LFS pointer to a file that was not downloaded.
    #[error(transparent)]
    Pointer(#[from] lfs::Pointer),
    /// The folder has weights in an unsupported format.
    #[error(
        "{path} has no model.safetensors and no model.safetensors.index.json, but {found}. Expected safetensors; convert \
         with Transformers: AutoModelForCausalLM.from_pretrained({path:?}, dtype=\"auto\").save_pretrained(OUT)"
    )]
    OtherFormat {
        /// The folder.
        path: PathBuf,
        /// The file of weights in the folder.
        found: String,
    },
    /// A file is not a safetensors file, or is damaged.
    #[error("{path} is not a valid safetensors file")]
    Header {
        /// The file.
        path: PathBuf,
        /// The error.
        source: header::Error,
    },
    /// The index of a sharded checkpoint is invalid.
    #[error("{path} is not an index of safetensors files")]
    Index {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The index refers to a file outside the folder.
    #[error("{path} names the file {name:?}, expected the name of a file in its folder")]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The invalid name.
        name: String,
    },
    /// Shards would be written beside existing weights.
    #[error("{path} already contains weights, expected a new folder for a sharded checkpoint")]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// None of the files contains a parameter of the model.
    #[error("tensor {tensor} is missing from {path}, expected shape {expected:?}")]
    Missing {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape according to the configuration.
        expected: Vec<i64>,
    },
    /// A tensor is not a parameter of the model.
    #[error("{path} holds tensor {tensor}, which is not a parameter of its configuration")]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// Two files contain the same tensor.
    #[error("tensor {tensor} is in {path} and in another file of the checkpoint")]
    Twice {
        /// The second file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor's shape differs from the configuration.
    #[error("tensor {tensor} in {path} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<u64>,
        /// Its shape according to the configuration.
        expected: Vec<i64>,
    },
    /// A redundant tensor differs from the configuration or the tensor it follows from.
    #[error("tensor {tensor} in {path} contradicts the configuration: {expected}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The expected content, and the fix.
        expected: &'static str,
    },
    /// A tensor differs from that of the model in memory, which several policies share.
    #[error(
        "tensor {tensor} in {path} differs from the base model in memory: expected versions that consist of an adapter of \
         that model"
    )]
    OtherBase {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A weight is infinite or not a number.
    #[error("tensor {tensor} in {path} holds values that are not finite")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// An adapter is only available in Python's pickle format, which can run programs when it is
    /// read.
    #[error(
        "{path} is a pickle file, which can run programs when it is read: expected adapter_model.safetensors beside it; \
         convert it with PEFT: PeftModel.from_pretrained(MODEL, FOLDER).save_pretrained(OUT)"
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds a model of another configuration or family.
    #[error("{path} is not a version of the policy: its configuration differs")]
    Architecture {
        /// The folder.
        path: PathBuf,
    },
}

impl Error {
    /// Converts an error of the operating system.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}
