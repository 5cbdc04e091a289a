//! The errors of evaluations.

use std::io;
use std::path::PathBuf;

use podium_recsys::dataset::HeldOut;

/// The reasons why an evaluation cannot be planned, read or computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A checksum that is part of a key cannot be computed.
    #[error(transparent)]
    Checksums(#[from] crate::checksums::Error),
    /// The run file of a part is invalid.
    #[error(transparent)]
    RunFile(#[from] podium_config::Error),
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
    /// A folder contains neither a model nor an adapter.
    #[error("{} contains no policy: expected config.json or adapter_config.json", path.display())]
    NoPolicy {
        /// The folder.
        path: PathBuf,
    },
    /// The data set cannot be read.
    #[error(transparent)]
    Data(#[from] podium_recsys::dataset::Error),
    /// The synthetic data set cannot be written.
    #[error(transparent)]
    World(#[from] podium_recsys::synthetic::Error),
    /// Trained baselines cannot be used.
    #[error(transparent)]
    Trained(#[from] crate::trained::Error),
    /// Recorded answers cannot be read.
    #[error(transparent)]
    Answers(#[from] crate::results::Error),
    /// A file of recorded answers does not match the evaluated users.
    #[error(
        "{} does not contain the answers of the {expected} evaluated users of the data set in their order: remove it and \
         evaluate again", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of evaluated users.
        expected: usize,
    },
    /// Two policies answered different candidate lists, which makes them incomparable.
    #[error(
        "two policies answered different candidate lists with {negatives} negatives in sample {draw}: this is a bug in podium"
    )]
    OtherCandidates {
        /// Number of negatives of the differing lists.
        negatives: usize,
        /// Index of the candidate sample.
        draw: u64,
    },
    /// The evaluated part has no users.
    #[error(
        "the data set has no {part} users (data.validation, data.min_interactions): add them, or choose another --part"
    )]
    NoUsers {
        /// The part.
        part: HeldOut,
    },
}
