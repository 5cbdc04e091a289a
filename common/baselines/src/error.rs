//! The errors of training.

use std::io;
use std::path::PathBuf;

/// The reasons why baselines cannot be trained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The number of threads cannot be set.
    #[error(transparent)]
    Threads(#[from] podium_model::device::Error),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] podium_checkpoint::Error),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] podium_files::durable::Error),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file has unexpected content.
    #[error("{}: expected {expected}; remove the file and train again", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The folder belongs to a training with other inputs.
    #[error(
        "{} contains baselines trained with {field} {found}, expected {expected}: choose another folder, or train with \
         the same inputs", folder.display()
    )]
    OtherTraining {
        /// The folder.
        folder: PathBuf,
        /// The input that differs.
        field: String,
        /// Its value in the folder.
        found: String,
        /// Its value in this training.
        expected: String,
    },
    /// No model is requested.
    #[error("no model to train: expected at least one")]
    NoModels,
    /// A model cannot learn from this data.
    #[error("{model} cannot be trained: {problem}")]
    Unusable {
        /// The model.
        model: &'static str,
        /// What is missing, and what was expected.
        problem: &'static str,
    },
    /// A matrix would exceed the memory of usual machines.
    #[error(
        "EASE inverts a matrix of items × items: {items} items with training interactions need {gigabytes} GB; expected at \
         most {limit} items. Train other models (--models), or reduce the catalogue"
    )]
    Catalogue {
        /// Number of items with training interactions.
        items: usize,
        /// Memory of the matrices.
        gigabytes: u64,
        /// Maximum number of items.
        limit: usize,
    },
    /// The matrix of EASE is not positive definite in floating point.
    #[error(
        "EASE with regularization {regularization}: the matrix cannot be inverted; train other models (--models)"
    )]
    Singular {
        /// The regularization.
        regularization: f64,
    },
    /// A loss is not a finite number.
    #[error(
        "{model}, settings {trial} of {trials}: the loss of epoch {epoch} is {loss}, expected a finite number; remove the \
         model from --models, or choose another --training-seed and folder"
    )]
    Diverged {
        /// The model.
        model: &'static str,
        /// The trial, from 1.
        trial: usize,
        /// Number of trials.
        trials: usize,
        /// The epoch, from 1.
        epoch: u64,
        /// The loss.
        loss: f64,
    },
}
