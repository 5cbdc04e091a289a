//! Defects of rows and their handling.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{ItemId, UserId};

/// Number of locations per kind of bad row in a report.
const LOCATIONS_NAMED: usize = 5;

/// Handling of rows that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowPolicy {
    /// Stop with an error that names file, location and expected format.
    #[default]
    Refuse,
    /// Skip the row and count it.
    Skip,
}

/// An error while reading or writing a data set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation of the operating system failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The failed operation: "read", "write", ….
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A row cannot be read and the policy is [`RowPolicy::Refuse`].
    #[error("{}, {location}: {problem} (set `data.bad_rows = \"skip\"` to skip such rows)", .file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Location in the file.
        location: Location,
        /// The defect and the expected format.
        problem: Problem,
    },
    /// A JSON file is malformed or has an unexpected outer structure.
    #[error("{}: expected {expected}", .file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// The expected outer structure.
        expected: &'static str,
        /// Error of the parser.
        source: serde_json::Error,
    },
    /// A CSV file has no header.
    #[error("{}, {location}: expected a header such as `item,title`, found {found:?}", .file.display())]
    NoHeader {
        /// The file.
        file: PathBuf,
        /// Its first line that is not blank.
        location: Location,
        /// First column of that line.
        found: String,
    },
    /// Lines that may be rows or a quoted field.
    #[error(
        "{}, lines {first} to {last}: a quoted field that contains whole rows; expected every quote to be closed on its \
         line, or doubled inside a quoted field", .file.display()
    )]
    AmbiguousQuote {
        /// The file.
        file: PathBuf,
        /// The line with the opening quote.
        first: u64,
        /// The line with the closing quote.
        last: u64,
    },
    /// A CSV file could not be read to its end.
    #[error("cannot read {}", .file.display())]
    Csv {
        /// The file.
        file: PathBuf,
        /// Error of the CSV reader.
        source: csv::Error,
    },
    /// A file has no usable row.
    #[error("{}: no usable row; expected {expected}", .file.display())]
    NoRows {
        /// The file.
        file: PathBuf,
        /// Format of a row.
        expected: &'static str,
    },
    /// The folder has no name to derive file names from.
    #[error("the data folder {} has no name: set `data.name`", .0.display())]
    Nameless(PathBuf),
    /// The minimum number of interactions leaves no history before the target.
    #[error("`data.min_interactions` is {0}, expected at least 2: some history, and the target")]
    MinInteractions(usize),
    /// Prompts without history.
    #[error("`data.max_history` is 0, expected at least 1: a prompt shows some history")]
    NoHistory,
    /// A user is in two files.
    #[error(
        "{user} is in both {earlier} and {later}; `data.split = \"users\"` requires each user to be in only one file"
    )]
    UserInBoth {
        /// The user.
        user: UserId,
        /// The file of the earlier part.
        earlier: &'static str,
        /// The file of the later part.
        later: &'static str,
    },
    /// A user's row is not a prefix of the row in a later part that ends before its target.
    #[error(
        "{user}: with `data.split = \"times\"` the user's row in {earlier} must be a prefix of the row in {later} that ends \
         before its target"
    )]
    NotEarlier {
        /// The user.
        user: UserId,
        /// The file of the earlier part.
        earlier: &'static str,
        /// The file of the later part.
        later: &'static str,
    },
    /// validation.tsv is required and absent.
    #[error(
        "{} does not exist, and `data.validation` is \"file\": add the file, or set `data.validation = \"auto\"` to take the \
         validation users from train.tsv", .0.display()
    )]
    NoValidation(PathBuf),
    /// All training users would become validation users.
    #[error(
        "train.tsv has {users} users, and none has {min_interactions} items (`data.min_interactions`) left to train on after \
         the validation part is taken from it: add users or items, add validation.tsv, or set `data.validation = \"none\"`"
    )]
    NothingToTrainOn {
        /// Number of users with enough interactions.
        users: usize,
        /// Minimum number of items of a training user.
        min_interactions: usize,
    },
}

/// Location of a row in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// A line, counted from 1.
    Line(u64),
    /// An entry of a JSON object or array, counted from 1.
    Entry(u64),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Entry(number) => write!(f, "entry {number}"),
        }
    }
}

/// Defect of a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Invalid UTF-8.
    #[error("not UTF-8 (a latin-1 file?); expected UTF-8 text")]
    NotUtf8,
    /// A line that exceeds the maximum length.
    #[error("longer than {0} bytes; expected one user's interactions")]
    TooLong(u64),
    /// Too few or too many columns.
    #[error("found {found} columns, expected {expected}")]
    Columns {
        /// Number of columns.
        found: usize,
        /// Expected number of columns.
        expected: usize,
    },
    /// A quote that is not closed.
    #[error("a quote that is never closed; expected a quote at the end of the field")]
    OpenQuote,
    /// A user id that is not a number.
    #[error("user id {0:?}, expected a whole number")]
    UserId(String),
    /// An item id that is not a number.
    #[error("item id {0:?}, expected a whole number")]
    ItemId(String),
    /// An item without a title.
    #[error("{0} has no row in the titles file")]
    UnknownItem(ItemId),
    /// Too few interactions.
    #[error("{0} interactions, expected at least 2: history and target")]
    TooFewItems(usize),
    /// A second row of a user.
    #[error("{0} has an earlier row; expected one row per user")]
    RepeatedUser(UserId),
    /// A second row of an item.
    #[error("{0} has an earlier row; expected one row per item")]
    RepeatedItem(ItemId),
    /// A negative that is in the user's history.
    #[error("{0} is in the user's own history; expected negatives outside it")]
    KnownNegative(ItemId),
    /// A title of white space only.
    #[error("{0} has an empty title")]
    EmptyTitle(ItemId),
    /// A JSON entry without a required text.
    #[error("expected a text under {0:?}")]
    NoText(&'static str),
    /// Reasoning that contains think tags.
    #[error("a think tag in the reasoning, expected the text between the tags")]
    ThinkTag,
}

impl Problem {
    /// Returns the name under which problems of this kind are counted.
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

/// Rows and users excluded while reading a data set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Training users with fewer than `min_interactions` items, without the item that became a validation target.
    pub train_users_too_short: usize,
    /// Validation users with fewer than `min_interactions` items.
    pub validation_users_too_short: usize,
    /// Test users with fewer than `min_interactions` items.
    pub test_users_too_short: usize,
    /// Items without a caption.
    pub items_without_caption: usize,
    /// Captions of items that are not in the catalogue.
    pub captions_without_item: usize,
    /// Reasoning of users other than training users, which is discarded.
    pub reasoning_not_of_training_users: usize,
    /// Rows skipped, by file and kind of problem.
    pub skipped: BTreeMap<String, BadRows>,
}

/// Skipped rows of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BadRows {
    /// Number of rows.
    pub count: u64,
    /// Locations of the first few.
    pub first: Vec<Location>,
}

/// A file that is read, with the handling of its bad rows.
pub(super) struct Rows<'a> {
    pub(super) file: &'a Path,
    pub(super) policy: RowPolicy,
    pub(super) report: &'a mut Report,
}

impl Rows<'_> {
    /// Rejects the row at `location`, or counts it as skipped.
    pub(super) fn bad(&mut self, location: Location, problem: Problem) -> Result<(), Error> {
        if self.policy == RowPolicy::Refuse {
            return Err(Error::Row { file: self.file.to_path_buf(), location, problem });
        }
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let rows = self.report.skipped.entry(format!("{name}: {}", problem.kind())).or_default();
        rows.count += 1;
        if rows.first.len() < LOCATIONS_NAMED {
            rows.first.push(location);
        }
        Ok(())
    }

    /// Returns a valid row and handles a bad one.
    pub(super) fn keep<T>(
        &mut self,
        location: Location,
        row: Result<T, Problem>,
    ) -> Result<Option<T>, Error> {
        match row {
            Ok(row) => Ok(Some(row)),
            Err(problem) => self.bad(location, problem).map(|()| None),
        }
    }
}

/// The beginning of a text that may be very long, for an error message.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
