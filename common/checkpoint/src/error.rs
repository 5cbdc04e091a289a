//! What can be wrong with the files of a model or an adapter.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use crate::{config, header, lfs};

/// A value in a configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// It asks for something that is not done here.
    #[error("{what} is {found}, which is not supported (supported: {supported})")]
    Unsupported {
        /// The key in the file.
        what: String,
        /// Its value.
        found: String,
        /// What would be accepted.
        supported: &'static str,
    },
    /// It makes no sense.
    #[error("{what} is {found}, expected {expected}")]
    Invalid {
        /// The key in the file.
        what: String,
        /// Its value.
        found: String,
        /// What would be accepted.
        expected: String,
    },
}

impl FieldError {
    pub(crate) fn unsupported(what: &str, found: impl Display, supported: &'static str) -> Self {
        Self::Unsupported { what: what.to_owned(), found: beginning(found), supported }
    }

    pub(crate) fn invalid(what: &str, found: impl Display, expected: &str) -> Self {
        Self::Invalid { what: what.to_owned(), found: beginning(found), expected: expected.to_owned() }
    }
}

/// As much of a value as a person reads.
fn beginning(value: impl Display) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(100) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Why weights cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// An adapter cannot be put on the model.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file stands for another one that was not downloaded.
    #[error(transparent)]
    Pointer(#[from] lfs::Pointer),
    /// The folder has weights in files that are not read.
    #[error(
        "{path} has no model.safetensors and no model.safetensors.index.json, but {found}. Expected safetensors; convert \
         with Transformers: AutoModelForCausalLM.from_pretrained({path:?}, dtype=\"auto\").save_pretrained(OUT)"
    )]
    OtherFormat {
        /// The folder.
        path: PathBuf,
        /// The file of weights that is there.
        found: String,
    },
    /// A file is not a safetensors file, or a damaged one.
    #[error("{path} is not a valid safetensors file")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: header::Error,
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
    /// Several files are to be written where weights are.
    #[error("{path} holds weights already, expected a new folder for a sharded checkpoint")]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A parameter of the model is in no file.
    #[error("tensor {tensor} is missing from {path}, expected shape {expected:?}")]
    Missing {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<i64>,
    },
    /// A tensor is no parameter of the model.
    #[error("{path} holds tensor {tensor}, which its configuration does not call for")]
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
    /// A tensor that follows from the configuration or from another tensor holds something else.
    #[error("tensor {tensor} in {path} differs from what the configuration says: {expected}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What it has to hold, and what to do.
        expected: &'static str,
    },
    /// A weight is infinite or not a number.
    #[error("tensor {tensor} in {path} holds values that are not finite")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// An adapter is there in Python's own format alone, which can run programs when it is read.
    #[error(
        "{path} is a pickle file, which can run programs when it is read: expected adapter_model.safetensors beside it; \
         convert it with PEFT: PeftModel.from_pretrained(MODEL, FOLDER).save_pretrained(OUT)"
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds a model of another shape or family.
    #[error("{path} is not a version of the policy: its configuration differs")]
    Architecture {
        /// The folder.
        path: PathBuf,
    },
}

impl Error {
    /// What becomes of an error of the operating system.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}
