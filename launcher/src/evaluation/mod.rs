//! An evaluation of policies: which parts it consists of, and what their answers come to.
//!
//! A part is one evaluation by the services of a run: one policy, one number of negatives, one draw of candidate lists,
//! in the order drawn or reversed. Its answers are kept under a name that says all they depend on, so that a part is
//! never asked twice and never taken for another. Figures are computed anew from the answers each time.

mod comparisons;
mod figure;
mod figures;
mod key;
mod listing;
mod plan;
mod probes;
mod ranked;
mod table;

use std::io;
use std::path::PathBuf;

pub(crate) use figure::Figure;
pub(crate) use figures::Evaluation;
pub(crate) use listing::{csv, lists};
pub(crate) use plan::{Asked, Plan, Policy};
pub(crate) use ranked::Ranking;
pub(crate) use table::tables;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Checksums(#[from] crate::checksums::Error),
    #[error(transparent)]
    RunFile(#[from] podium_config::Error),
    #[error(transparent)]
    File(#[from] podium_files::durable::Error),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds no policy: expected config.json or adapter_config.json there", path.display())]
    NoPolicy { path: PathBuf },
    #[error(transparent)]
    Data(#[from] podium_recsys::dataset::Error),
    #[error(transparent)]
    World(#[from] podium_recsys::synthetic::Error),
    #[error(transparent)]
    Answers(#[from] crate::results::Error),
    #[error(
        "{} does not hold the answers of the {expected} held-out users of the data set in their order: remove it and \
         evaluate again", path.display()
    )]
    Damaged { path: PathBuf, expected: usize },
    #[error(
        "two policies were asked about other candidates at {negatives} negatives in draw {draw}: this is a fault of podium"
    )]
    OtherCandidates { negatives: usize, draw: u64 },
    #[error("the data set has no held-out user to ask")]
    NoUsers,
}
