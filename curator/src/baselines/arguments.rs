//! Command-line options of the baselines.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use podium_baselines::Model;
use podium_recsys::dataset::{HeldOut, Split, Validation};

/// The measured data set, baselines and metrics.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder of the data set.
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Prefix of the files in the folder [default: the folder's name].
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Part of the data set whose users are ranked for. Baselines read the training part alone in either case.
    #[arg(long, value_enum, default_value = "test")]
    pub(super) part: Part,
    /// Separation of training and held-out data, as `data.split` of a run file. The default also accepts a data set that
    /// is split by users if it has a validation.tsv.
    #[arg(long, value_enum, default_value = "times")]
    pub(super) split: SplitKind,
    /// Origin of the validation users, as `data.validation` of a run file.
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) validation: Origin,
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
    /// Cutoffs of the metrics.
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_values_t = [1, 3, 5, 10])]
    pub(super) at: Vec<usize>,
    /// Maximum number of users; a random sample if there are more.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(super) users: usize,
    /// Seed of candidate samples, intervals and sampled users, as `candidates.evaluation_seed` of a run file.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Also rank the whole catalogue: all items outside the user's whole history, and the target.
    #[arg(long)]
    pub(super) catalogue: bool,
    /// File for all values, slices included, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Train models and write weights and scores into this folder; a folder of an interrupted training is continued.
    #[arg(long, value_name = "DIR")]
    pub(super) train: Option<PathBuf>,
    /// Evaluate the models that an earlier --train wrote into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "train")]
    pub(super) trained: Option<PathBuf>,
    #[command(flatten)]
    pub(super) training: Training,
}

/// How models are trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub(super) struct Training {
    /// Models to train.
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',', value_enum, requires = "train")]
    #[arg(default_values_t = [Trainable::Sasrec, Trainable::Gru4rec, Trainable::BprMf, Trainable::Lightgcn, Trainable::Ease])]
    pub(super) models: Vec<Trainable>,
    /// Seed of weights, batches, negatives and dropout.
    #[arg(
        id = "training_seed",
        long = "training-seed",
        value_name = "N",
        default_value_t = 0,
        requires = "train"
    )]
    pub(super) seed: u64,
    /// Number of threads; results depend on it in rounding.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "train", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) threads: u16,
    /// Maximum number of epochs for each choice of settings [default: 200 of SASRec and GRU4Rec, 400 of others].
    #[arg(long, value_name = "N", requires = "train", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) epochs: Option<u64>,
    /// Number of validations without a better NDCG@10 after which training with a choice of settings ends.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "train", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) patience: u32,
}

/// A model that can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Trainable {
    /// SASRec with cross-entropy over the whole catalogue.
    Sasrec,
    /// SASRec with its original loss, one negative for each target.
    SasrecBinary,
    /// GRU4Rec with cross-entropy over the whole catalogue.
    Gru4rec,
    /// Matrix factorization with the pairwise loss BPR.
    BprMf,
    /// Graph convolution with BPR.
    Lightgcn,
    /// The linear model EASE, in closed form.
    Ease,
}

impl From<Trainable> for Model {
    fn from(model: Trainable) -> Self {
        match model {
            Trainable::Sasrec => Self::SasRec,
            Trainable::SasrecBinary => Self::SasRecBinary,
            Trainable::Gru4rec => Self::Gru4Rec,
            Trainable::BprMf => Self::BprMf,
            Trainable::Lightgcn => Self::LightGcn,
            Trainable::Ease => Self::Ease,
        }
    }
}

/// A held-out part.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Part {
    /// Users by which a run chooses its best version and when to end.
    Validation,
    /// Users whose results are quoted.
    Test,
}

impl From<Part> for HeldOut {
    fn from(part: Part) -> Self {
        match part {
            Part::Validation => Self::Validation,
            Part::Test => Self::Test,
        }
    }
}

/// Separation of training and held-out data.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum SplitKind {
    /// No user is in two parts.
    Users,
    /// A user may be in several parts, as in leave-one-out.
    Times,
}

impl From<SplitKind> for Split {
    fn from(split: SplitKind) -> Self {
        match split {
            SplitKind::Users => Self::Users,
            SplitKind::Times => Self::Times,
        }
    }
}

/// Origin of the validation users.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Origin {
    /// validation.tsv if there is one, otherwise the training data.
    Auto,
    /// validation.tsv.
    File,
    /// No validation users; every row of train.tsv is training data.
    None,
}

impl From<Origin> for Validation {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Auto => Self::Auto,
            Origin::File => Self::File,
            Origin::None => Self::None,
        }
    }
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
