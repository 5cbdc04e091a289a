//! The run file: one TOML file that every process of a run reads.
//!
//! Layers, in ascending precedence: defaults, the file, environment variables (`PODIUM_SECTION__KEY`), flags (`--set
//! section.key=value`). Unknown keys are rejected with a suggestion of the nearest known key. [`RunFile::hash`] covers
//! the sections that change results, so that processes of different runs detect each other.
//!
//! This crate parses text and numbers only; it opens no data set and no model.

mod devices;
mod error;
mod layers;
mod load;
pub mod reference;
mod run_file;
mod schema;
pub mod sections;
mod validate;

pub use devices::Devices;
pub use error::Error;
pub use layers::Override;
pub use load::require_text;
pub use run_file::RunFile;
pub use sections::{
    Attention, CollectiveChoice, Colocate, DataType, Evaluation, Launch, Learner, Lora, LrScheduler,
    MergeAdapter, Model, Network, Rollout, Run, Sft, Stage,
};
