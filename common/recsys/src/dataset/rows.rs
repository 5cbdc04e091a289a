//! What can be wrong with a row, and what becomes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{ItemId, UserId};

/// How many places of each kind of bad row a report names.
const PLACES_NAMED: usize = 5;

/// What to do with a row that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowPolicy {
    /// Stop with an error that names file, place and what was expected.
    #[default]
    Refuse,
    /// Leave the row out and count it.
    Skip,
}

/// Why a data set could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried: "read", "write", ….
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A row cannot be read and the policy is to refuse.
    #[error("{}, {place}: {problem} (`data.bad_rows = \"skip\"` would leave such rows out)", .file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Where in it.
        place: Place,
        /// What is wrong, and what was expected.
        problem: Problem,
    },
    /// A JSON file is not JSON, or not of the expected outer shape.
    #[error("{}: expected {expected}", .file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// The expected outer shape.
        expected: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A CSV file has no header.
    #[error("{}, {place}: expected a header such as `item,title`, found {found:?}", .file.display())]
    NoHeader {
        /// The file.
        file: PathBuf,
        /// Its first line that is not blank.
        place: Place,
        /// That line's first column.
        found: String,
    },
    /// Lines that may be rows or a quoted field.
    #[error(
        "{}, lines {first} to {last}: a quoted field that holds whole rows; expected every quote to be closed on its \
         line, or doubled inside a quoted field", .file.display()
    )]
    AmbiguousQuote {
        /// The file.
        file: PathBuf,
        /// The line that opens the quote.
        first: u64,
        /// The line that closes it.
        last: u64,
    },
    /// A CSV file could not be read to its end.
    #[error("cannot read {}", .file.display())]
    Csv {
        /// The file.
        file: PathBuf,
        /// What the reader says.
        source: csv::Error,
    },
    /// A file holds no usable row.
    #[error("{}: no usable row; expected {expected}", .file.display())]
    NoRows {
        /// The file.
        file: PathBuf,
        /// What a row looks like.
        expected: &'static str,
    },
    /// The folder has no name to derive file names from.
    #[error("the data folder {} has no name of its own: set `data.name`", .0.display())]
    Nameless(PathBuf),
    /// The window leaves no room for a history and a target.
    #[error("`data.min_interactions` is {0}, expected at least 2: some history, and the target")]
    MinInteractions(usize),
    /// Prompts without history.
    #[error("`data.max_history` is 0, expected at least 1: a prompt shows some history")]
    NoHistory,
    /// A held-out user is trained on.
    #[error(
        "{0} is in both train.tsv and test.tsv; `data.split = \"users\"` expects each user in one of them"
    )]
    UserInBoth(UserId),
    /// Training data of a held-out user reaches to their target, or is another sequence altogether.
    #[error(
        "{0}: with `data.split = \"times\"` the user's row in train.tsv must be a beginning of the row in test.tsv \
         that ends before its target"
    )]
    NotEarlier(UserId),
}

/// Where in a file a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A line, counted from 1.
    Line(u64),
    /// An entry of a JSON object or array, counted from 1.
    Entry(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Entry(number) => write!(f, "entry {number}"),
        }
    }
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Bytes that are no text.
    #[error("not UTF-8 (a latin-1 file?); expected UTF-8 text")]
    NotUtf8,
    /// A line no data set has.
    #[error("longer than {0} bytes; expected one user's interactions")]
    TooLong(u64),
    /// Too few or too many columns.
    #[error("found {found} columns, expected {expected}")]
    Columns {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A quote without its end.
    #[error("a quote that is never closed; expected a quote at the end of the field")]
    OpenQuote,
    /// Not a user's number.
    #[error("user id {0:?}, expected a whole number")]
    UserId(String),
    /// Not an item's number.
    #[error("item id {0:?}, expected a whole number")]
    ItemId(String),
    /// An item without a title.
    #[error("{0} has no row in the titles file")]
    UnknownItem(ItemId),
    /// Too little to learn from.
    #[error("{0} interactions, expected at least 2: some history, and the target")]
    TooFewItems(usize),
    /// A user who was there before.
    #[error("{0} has an earlier row; expected one row a user")]
    RepeatedUser(UserId),
    /// An item that was there before.
    #[error("{0} has an earlier row; expected one row an item")]
    RepeatedItem(ItemId),
    /// A negative that is none.
    #[error("{0} is in the user's own history; expected negatives outside it")]
    KnownNegative(ItemId),
    /// A title of white space.
    #[error("{0} has an empty title")]
    EmptyTitle(ItemId),
    /// A JSON entry without a text that it should have.
    #[error("expected a text under {0:?}")]
    NoText(&'static str),
    /// Reasoning that brings its own think tags.
    #[error("a think tag in the reasoning, expected the text between the tags")]
    ThinkTag,
}

impl Problem {
    /// A name for counting problems of one kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::TooLong(_) => "too_long",
            Self::Columns { .. } => "columns",
            Self::OpenQuote => "open_quote",
            Self::UserId(_) => "user_id",
            Self::ItemId(_) => "item_id",
            Self::UnknownItem(_) => "unknown_item",
            Self::TooFewItems(_) => "too_few_items",
            Self::RepeatedUser(_) => "repeated_user",
            Self::RepeatedItem(_) => "repeated_item",
            Self::KnownNegative(_) => "known_negative",
            Self::EmptyTitle(_) => "empty_title",
            Self::NoText(_) => "no_text",
            Self::ThinkTag => "think_tag",
        }
    }
}

/// What was left out when reading a data set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Training users with fewer than `min_interactions` items.
    pub train_users_too_short: usize,
    /// Held-out users with fewer than `min_interactions` items.
    pub test_users_too_short: usize,
    /// Items that no caption describes.
    pub items_without_caption: usize,
    /// Captions of items that are not in the catalogue.
    pub captions_without_item: usize,
    /// Reasoning that is not of a training user, and therefore was not kept.
    pub reasoning_not_of_training_users: usize,
    /// Rows skipped, by file and kind of problem.
    pub skipped: BTreeMap<String, BadRows>,
}

/// Skipped rows of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BadRows {
    /// How many there are.
    pub count: u64,
    /// Where the first few are.
    pub first: Vec<Place>,
}

/// A file being read: decides what becomes of its bad rows.
pub(super) struct Rows<'a> {
    pub(super) file: &'a Path,
    pub(super) policy: RowPolicy,
    pub(super) report: &'a mut Report,
}

impl Rows<'_> {
    /// Refuses the row at `place`, or counts it as skipped.
    pub(super) fn bad(&mut self, place: Place, problem: Problem) -> Result<(), Error> {
        if self.policy == RowPolicy::Refuse {
            return Err(Error::Row { file: self.file.to_path_buf(), place, problem });
        }
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let rows = self.report.skipped.entry(format!("{name}: {}", problem.kind())).or_default();
        rows.count += 1;
        if rows.first.len() < PLACES_NAMED {
            rows.first.push(place);
        }
        Ok(())
    }

    /// Keeps a row that was read, and sees to one that was not.
    pub(super) fn keep<T>(&mut self, place: Place, row: Result<T, Problem>) -> Result<Option<T>, Error> {
        match row {
            Ok(row) => Ok(Some(row)),
            Err(problem) => self.bad(place, problem).map(|()| None),
        }
    }
}
