//! What can be asked of `podium-curator import`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::arrange::SameTime;
use super::encoding::Choice;
use super::split::Kind;
use crate::flags;

/// A format, its files, and what to make of them.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) format: Format,
}

impl Arguments {
    /// What is common to all formats.
    pub(crate) const fn choices(&self) -> &Choices {
        match &self.format {
            Format::Movielens { choices, .. }
            | Format::Microlens { choices, .. }
            | Format::Amazon { choices, .. } => choices,
            Format::Table(table) => &table.choices,
        }
    }
}

/// What is common to all formats.
#[derive(Debug, Args)]
pub(crate) struct Choices {
    /// Folder to make. It must be absent or empty; it appears once all is written and checked.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Prefix of the files in the folder; the folder's own name otherwise.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How training and held-out data are kept apart.
    #[arg(long, value_enum, default_value = "leave-one-out")]
    pub(crate) split: Kind,
    /// For `--split time`: the moment, a number as in the file or a date; training ends before it.
    #[arg(long, value_name = "TIME")]
    pub(crate) split_time: Option<String>,
    /// For `--split time` without a moment: the share of interactions at or after it. For `--split users`: the share of
    /// users.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub(crate) test_share: f64,
    /// Seed of random choices: the order of interactions at the same time, and the users held out by `--split users`.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Users with fewer interactions are left out. At 2, the least, a user with one is a bad row.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) min_user_interactions: usize,
    /// Items with fewer interactions are left out, again and again until all users and items that are left have enough.
    /// 0 keeps items that nobody interacted with as candidates.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_item_interactions: usize,
    /// Interactions rated lower are no interactions.
    #[arg(long, value_name = "RATING", value_parser = flags::finite)]
    pub(crate) min_rating: Option<f64>,
    /// Leave out rows that cannot be used, and count them, instead of stopping at the first.
    #[arg(long)]
    pub(crate) skip_bad_rows: bool,
    /// The order of interactions of one user at the same time.
    #[arg(long, value_enum, default_value = "random")]
    pub(crate) same_time: SameTime,
    /// How the files' bytes stand for text.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) encoding: Choice,
}

/// Where the data come from.
#[derive(Debug, Subcommand)]
pub(crate) enum Format {
    /// MovieLens 100K, 1M, 10M, 20M to latest; the layout is told from the files.
    Movielens {
        /// u.data, ratings.dat or ratings.csv.
        #[arg(long, value_name = "FILE")]
        ratings: PathBuf,
        /// u.item, movies.dat or movies.csv.
        #[arg(long, value_name = "FILE")]
        items: PathBuf,
        /// A CSV file `title,sentence` with a header; the sentences stand in for captions.
        #[arg(long, value_name = "FILE")]
        summaries: Option<PathBuf>,
        #[command(flatten)]
        choices: Choices,
    },
    /// MicroLens: pairs of users and items, and titles.
    Microlens {
        /// `user TAB items separated by spaces`, or a table `user,item,timestamp`.
        #[arg(long, value_name = "FILE")]
        pairs: PathBuf,
        /// A table `item,title`.
        #[arg(long, value_name = "FILE")]
        titles: PathBuf,
        #[command(flatten)]
        choices: Choices,
    },
    /// Amazon-style JSON lines, of 2014, 2018 or 2023.
    Amazon {
        /// Reviews, a JSON object a line.
        #[arg(long, value_name = "FILE")]
        reviews: PathBuf,
        /// Metadata, a JSON object a line.
        #[arg(long, value_name = "FILE")]
        metadata: PathBuf,
        /// Field of the metadata that stands in for captions, such as `description`.
        #[arg(long, value_name = "FIELD")]
        caption_field: Option<String>,
        #[command(flatten)]
        choices: Choices,
    },
    /// Interactions and items as Parquet or CSV.
    Table(Box<Table>),
}

/// Tables and the names of their columns.
#[derive(Debug, Args)]
pub(crate) struct Table {
    /// Interactions: `.parquet`, or CSV with a header.
    #[arg(long, value_name = "FILE")]
    pub(crate) interactions: PathBuf,
    /// Items: `.parquet`, or CSV with a header.
    #[arg(long, value_name = "FILE")]
    pub(crate) items: PathBuf,
    /// Column of users.
    #[arg(long, value_name = "NAME", default_value = "user")]
    pub(crate) user_column: String,
    /// Column of items.
    #[arg(long, value_name = "NAME", default_value = "item")]
    pub(crate) item_column: String,
    /// Column of times: whole numbers or dates.
    #[arg(long, value_name = "NAME", default_value = "timestamp")]
    pub(crate) time_column: String,
    /// Column of ratings, for `--min-rating`.
    #[arg(long, value_name = "NAME")]
    pub(crate) rating_column: Option<String>,
    /// Column of ids in the item table.
    #[arg(long, value_name = "NAME", default_value = "item")]
    pub(crate) item_id_column: String,
    /// Column of titles in the item table.
    #[arg(long, value_name = "NAME", default_value = "title")]
    pub(crate) title_column: String,
    /// Column of the item table that describes the item: its caption.
    #[arg(long, value_name = "NAME")]
    pub(crate) caption_column: Option<String>,
    #[command(flatten)]
    pub(crate) choices: Choices,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| *share > 0.0 && *share < 1.0)
        .ok_or_else(|| "expected a share between 0 and 1".into())
}
