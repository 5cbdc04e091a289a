//! The files of Hugging Face models, without the tensors: what `config.json` says, which parameters follow from it, and
//! how safetensors files, one or sharded, are checked, read and written.
//!
//! Everything that comes from a file is checked before it is believed and before anything is allocated for it. Nothing
//! here depends on libtorch, so that hostile files can be tried on it in great numbers.

pub mod adapter;
pub mod config;
mod error;
mod fields;
pub mod header;
pub mod lfs;
pub mod parameters;
mod read;
mod redundant;
pub mod rope;
mod write;

pub use config::{Config, Family};
pub use error::{Error, FieldError};
pub use header::{Dtype, TensorInfo};
pub use read::{Checkpoint, TensorView};
pub use write::{new_folder, replace, write, write_file};

/// The weights where they are in one file.
pub const ONE_FILE: &str = "model.safetensors";
/// Where each tensor is when they are in several files.
pub const INDEX: &str = "model.safetensors.index.json";
