//! The errors of the baselines.

use podium_evaluation::trained;
use podium_files::durable;
use podium_recsys::dataset::HeldOut;
use podium_recsys::{candidates, dataset};
use podium_service::startup;

/// The reasons why the baselines cannot be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The data set cannot be read.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// Candidates cannot be sampled.
    #[error(transparent)]
    Candidates(#[from] candidates::Error),
    /// The metrics cannot be written.
    #[error(transparent)]
    Durable(#[from] durable::Error),
    /// Models cannot be trained.
    #[error(transparent)]
    Training(#[from] podium_baselines::Error),
    /// Trained models cannot be used.
    #[error(transparent)]
    Trained(#[from] trained::Error),
    /// The runtime that waits for signals cannot start.
    #[error(transparent)]
    Startup(#[from] startup::Error),
    /// Signals cannot be handled.
    #[error("cannot handle signals")]
    Signals(#[source] std::io::Error),
    /// The part has no users.
    #[error("the data set has no {0} users: add {0}.tsv, or choose another --part")]
    NoUsers(HeldOut),
    /// A cutoff at rank 0.
    #[error("--at 0: expected ranks from 1")]
    Cut,
}
