//! The files of Hugging Face models, without tensors: the content of `config.json`, the resulting parameters, and
//! checking, reading and writing of safetensors files, single or sharded.
//!
//! All content of files is checked before use and before any allocation. This crate does not depend on libtorch, so
//! that hostile files can be tested in large numbers.

pub mod adapter;
pub mod config;
mod error;
mod field_error;
mod fields;
pub mod flops;
pub mod header;
pub mod lfs;
pub mod parameters;
mod read;
mod redundant;
pub mod rope;
mod view;
mod write;

pub use config::{Config, Family};
pub use error::Error;
pub use field_error::FieldError;
pub use header::{Dtype, TensorInfo};
pub use read::Checkpoint;
pub use view::TensorView;
pub use write::{write, write_file};

/// File name of weights in one file.
pub const ONE_FILE: &str = "model.safetensors";
/// File name of the index of sharded weights.
pub const INDEX: &str = "model.safetensors.index.json";
