//! Formats of `podium-curator import`: their files, options and readers.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::choices::Choices;
use super::collector::Collector;
use super::header::{ItemColumns, LogColumns};
use super::objects::Fields;
use super::rows::Error;
use super::{microlens, mind, minionerec, movielens, netflix, recbole, sites, table};

/// A format with its files and options.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) format: Format,
}

/// Source of the data. Every file may be compressed (gzip, Zstandard, zip) or a folder of parts, and several files may
/// be given.
#[derive(Debug, Subcommand)]
pub(crate) enum Format {
    /// MovieLens 100K, 1M, 10M, 20M, 25M, 32M and latest; the layout is detected.
    Movielens(Movielens),
    /// MicroLens: pairs of users and items, and titles.
    Microlens(Microlens),
    /// Amazon reviews of 2014, 2018 or 2023: objects per line, or tables of ratings of 2023.
    Amazon(Site),
    /// Goodreads (UCSD book graph): interactions or reviews, and books.
    Goodreads(Site),
    /// Steam: `steam_reviews.json.gz` and `steam_games.json.gz`.
    Steam(Site),
    /// Yelp open data set: reviews and businesses.
    Yelp(Site),
    /// MIND: behaviors.tsv and news.tsv.
    Mind(Mind),
    /// Netflix Prize: `combined_data_*.txt` or the folder `training_set`, and `movie_titles.csv`.
    Netflix(Netflix),
    /// RecBole's atomic files: .inter and .item.
    Recbole(Box<Recbole>),
    /// The released splits of MiniOneRec.
    Minionerec(Minionerec),
    /// Interactions and items as Parquet or CSV.
    Table(Box<Table>),
}

/// Files of MovieLens.
#[derive(Debug, Args)]
pub(crate) struct Movielens {
    /// u.data, ratings.dat or ratings.csv.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    ratings: Vec<PathBuf>,
    /// u.item, movies.dat or movies.csv.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    items: Vec<PathBuf>,
    /// A CSV file `title,sentence` with a header; the sentences are used as captions.
    #[arg(long, value_name = "FILE")]
    summaries: Option<PathBuf>,
    #[command(flatten)]
    choices: Choices,
}

/// Files of MicroLens.
#[derive(Debug, Args)]
pub(crate) struct Microlens {
    /// `user TAB items separated by spaces`, or a table `user,item,timestamp`.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pairs: Vec<PathBuf>,
    /// A table `item,title`.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    titles: Vec<PathBuf>,
    #[command(flatten)]
    choices: Choices,
}

/// Files with one object per line.
#[derive(Debug, Args)]
pub(crate) struct Site {
    /// Reviews or interactions, one object per line.
    #[arg(long, value_name = "FILE", required = true, num_args = 1.., visible_alias = "interactions")]
    reviews: Vec<PathBuf>,
    /// Items with their titles, one object per line.
    #[arg(long, value_name = "FILE", required = true, num_args = 1.., visible_alias = "items")]
    metadata: Vec<PathBuf>,
    /// Field of the items used as the caption, such as `description`.
    #[arg(long, value_name = "FIELD")]
    caption_field: Option<String>,
    #[command(flatten)]
    choices: Choices,
}

/// Files of MIND.
#[derive(Debug, Args)]
pub(crate) struct Mind {
    /// behaviors.tsv; several parts may be given.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    behaviors: Vec<PathBuf>,
    /// news.tsv; several parts may be given.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    news: Vec<PathBuf>,
    /// Use abstracts as captions.
    #[arg(long)]
    abstracts: bool,
    #[command(flatten)]
    choices: Choices,
}

/// Files of the Netflix Prize.
#[derive(Debug, Args)]
pub(crate) struct Netflix {
    /// `combined_data_*.txt`, or the folder of `mv_*.txt`.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    ratings: Vec<PathBuf>,
    /// `movie_titles.csv`.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    titles: Vec<PathBuf>,
    #[command(flatten)]
    choices: Choices,
}

/// Atomic files and the names of their fields, without types.
#[derive(Debug, Args)]
pub(crate) struct Recbole {
    /// .inter files.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    interactions: Vec<PathBuf>,
    /// .item files.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    items: Vec<PathBuf>,
    /// Field of users.
    #[arg(long, value_name = "NAME", default_value = "user_id")]
    user_field: String,
    /// Field of items, in both files.
    #[arg(long, value_name = "NAME", default_value = "item_id")]
    item_field: String,
    /// Field of times.
    #[arg(long, value_name = "NAME", default_value = "timestamp")]
    time_field: String,
    /// Field of ratings, for `--min-rating` [default: rating, if there is one].
    #[arg(long, value_name = "NAME")]
    rating_field: Option<String>,
    /// Field of titles [default: the first of `title`, `movie_title`, `item_name`, `name`, `movie_name`, `book_title`, `app_name`].
    #[arg(long, value_name = "NAME")]
    title_field: Option<String>,
    /// Field of items used as the caption.
    #[arg(long, value_name = "NAME")]
    caption_field: Option<String>,
    #[command(flatten)]
    choices: Choices,
}

/// Files of MiniOneRec.
#[derive(Debug, Args)]
pub(crate) struct Minionerec {
    /// train/*.csv.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    train: Vec<PathBuf>,
    /// valid/*.csv.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    valid: Vec<PathBuf>,
    /// test/*.csv.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    test: Vec<PathBuf>,
    /// info/*.txt.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    info: Vec<PathBuf>,
    #[command(flatten)]
    choices: Choices,
}

/// Tables and the names of their columns.
#[derive(Debug, Args)]
pub(crate) struct Table {
    /// Interactions: Parquet, or CSV with a header.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    interactions: Vec<PathBuf>,
    /// Items: Parquet, or CSV with a header.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    items: Vec<PathBuf>,
    /// Column of users.
    #[arg(long, value_name = "NAME", default_value = "user")]
    user_column: String,
    /// Column of items.
    #[arg(long, value_name = "NAME", default_value = "item")]
    item_column: String,
    /// Column of times: whole numbers of one unit, or dates.
    #[arg(long, value_name = "NAME", default_value = "timestamp")]
    time_column: String,
    /// Column of ratings, for `--min-rating`.
    #[arg(long, value_name = "NAME")]
    rating_column: Option<String>,
    /// Column of ids in the item table.
    #[arg(long, value_name = "NAME", default_value = "item")]
    item_id_column: String,
    /// Column of titles in the item table.
    #[arg(long, value_name = "NAME", default_value = "title")]
    title_column: String,
    /// Column of the item table that is used as the caption.
    #[arg(long, value_name = "NAME")]
    caption_column: Option<String>,
    #[command(flatten)]
    choices: Choices,
}

impl Format {
    /// Returns the options common to all formats.
    pub(crate) const fn choices(&self) -> &Choices {
        match self {
            Self::Movielens(format) => &format.choices,
            Self::Microlens(format) => &format.choices,
            Self::Amazon(format) | Self::Goodreads(format) | Self::Steam(format) | Self::Yelp(format) => {
                &format.choices
            }
            Self::Mind(format) => &format.choices,
            Self::Netflix(format) => &format.choices,
            Self::Recbole(format) => &format.choices,
            Self::Minionerec(format) => &format.choices,
            Self::Table(format) => &format.choices,
        }
    }

    /// Returns the format's name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Movielens(_) => "movielens",
            Self::Microlens(_) => "microlens",
            Self::Amazon(_) => "amazon",
            Self::Goodreads(_) => "goodreads",
            Self::Steam(_) => "steam",
            Self::Yelp(_) => "yelp",
            Self::Mind(_) => "mind",
            Self::Netflix(_) => "netflix",
            Self::Recbole(_) => "recbole",
            Self::Minionerec(_) => "minionerec",
            Self::Table(_) => "table",
        }
    }

    /// Whether the format's published files are known to have gaps: duplicates, items without title, interactions with
    /// unknown items, users with one interaction.
    pub(crate) const fn has_gaps(&self) -> bool {
        match self {
            Self::Amazon(_)
            | Self::Goodreads(_)
            | Self::Steam(_)
            | Self::Yelp(_)
            | Self::Mind(_)
            | Self::Recbole(_) => true,
            Self::Movielens(_)
            | Self::Microlens(_)
            | Self::Netflix(_)
            | Self::Minionerec(_)
            | Self::Table(_) => false,
        }
    }

    /// Reads the files of the format.
    pub(crate) fn read(&self, collector: &mut Collector) -> Result<(), Error> {
        match self {
            Self::Movielens(format) => {
                movielens::read(collector, &format.ratings, &format.items, format.summaries.as_deref())
            }
            Self::Microlens(format) => microlens::read(collector, &format.pairs, &format.titles),
            Self::Amazon(site) => site.read(collector, &sites::AMAZON),
            Self::Goodreads(site) => site.read(collector, &sites::GOODREADS),
            Self::Steam(site) => site.read(collector, &sites::STEAM),
            Self::Yelp(site) => site.read(collector, &sites::YELP),
            Self::Mind(format) => mind::read(collector, &format.behaviors, &format.news, format.abstracts),
            Self::Netflix(format) => netflix::read(collector, &format.ratings, &format.titles),
            Self::Recbole(format) => {
                let names = recbole::Names {
                    user: &format.user_field,
                    item: &format.item_field,
                    time: &format.time_field,
                    rating: format.rating_field.as_deref(),
                    title: format.title_field.as_deref(),
                    caption: format.caption_field.as_deref(),
                };
                recbole::read(collector, &format.interactions, &format.items, &names)
            }
            Self::Minionerec(format) => {
                let parts =
                    minionerec::Parts { train: &format.train, valid: &format.valid, test: &format.test };
                minionerec::read(collector, parts, &format.info)
            }
            Self::Table(format) => {
                let log_names = LogColumns {
                    user: &format.user_column,
                    item: &format.item_column,
                    time: &format.time_column,
                    rating: format.rating_column.as_deref(),
                };
                let item_names = ItemColumns {
                    id: &format.item_id_column,
                    title: &format.title_column,
                    caption: format.caption_column.as_deref(),
                };
                table::read(collector, (&format.interactions, &log_names), (&format.items, &item_names))
            }
        }
    }
}

impl Site {
    fn read(&self, collector: &mut Collector, fields: &Fields) -> Result<(), Error> {
        sites::read(collector, fields, &self.reviews, &self.metadata, self.caption_field.as_deref())
    }
}
