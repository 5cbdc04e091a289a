//! Command-line options of the baselines.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};

/// The measured data set, baselines and metrics.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder of the data set.
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Prefix of the files in the folder [default: the folder's name].
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Minimum number of interactions of a user.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(super) min_interactions: usize,
    /// Number of negatives per target; one table for each number.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [9, 99], value_parser = up_to(1_000_000))]
    pub(super) negatives: Vec<usize>,
    /// Distribution of negatives over the items outside the user's whole history.
    #[arg(long, value_enum, default_value = "uniform")]
    pub(super) drawn: Drawn,
    /// Number of candidate samples per user.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) draws: u64,
    /// Cutoffs of HR, NDCG and MRR.
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_values_t = [1, 3, 5, 10])]
    pub(super) at: Vec<usize>,
    /// Maximum number of held-out users; a random sample if there are more.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(super) users: usize,
    /// Seed of candidate samples, intervals and sampled users, as `candidates.evaluation_seed` of a run file.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// File for all values, slices included, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

fn up_to(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(..=most)
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Drawn {
    /// Each item is equally likely.
    Uniform,
    /// In proportion to 1 + an item's training interactions.
    Popularity,
    /// From the data set's negatives file.
    Supplied,
}
