//! What can be wrong with a row of a foreign file, and what becomes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use podium_files::durable;
use podium_recsys::dataset::{self, BadRows, Place};

use super::arrange::Earlier;
use super::encoding::Encoding;
use super::input::Input;
use super::times::Unit;

/// How many places of each kind of bad row are named.
const PLACES_NAMED: usize = 5;

/// Why an import came to nothing. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// What can be read only once.
    #[error("{}: expected a regular file, not a pipe: it is read more than once", .0.display())]
    NotRegular(PathBuf),
    /// A file could not be made durable.
    #[error(transparent)]
    Durable(#[from] durable::Error),
    /// A row cannot be used and rows are not to be skipped.
    #[error("{}, {place}: {problem} (--skip-bad-rows leaves such rows out and counts them)", .file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Where in it.
        place: Place,
        /// What is wrong, and what was expected.
        problem: Problem,
    },
    /// The file is not of any layout of its kind.
    #[error("{}, line {line}: {found:?}: expected {expected}", .file.display())]
    Layout {
        /// The file.
        file: PathBuf,
        /// Its first line that is not blank.
        line: u64,
        /// How it begins.
        found: String,
        /// What it may look like.
        expected: &'static str,
    },
    /// A table has no column of that name.
    #[error("{}: there is no column {column:?}; it has {}", .file.display(), .found.join(", "))]
    NoColumn {
        /// The file.
        file: PathBuf,
        /// The name that was looked for.
        column: String,
        /// The names that there are.
        found: Vec<String>,
    },
    /// A table has several columns of that name.
    #[error("{}: there are {count} columns {column:?}: expected one", .file.display())]
    RepeatedColumn {
        /// The file.
        file: PathBuf,
        /// The name that was looked for.
        column: String,
        /// How many have it.
        count: usize,
    },
    /// A folder without files of rows.
    #[error("{}: no file of rows; expected files whose names do not begin with `_` or `.`", .0.display())]
    EmptyFolder(PathBuf),
    /// A zip archive cannot be read.
    #[error("cannot read {}", .file.display())]
    Zip {
        /// The archive.
        file: PathBuf,
        /// What the reader says.
        source: zip::result::ZipError,
    },
    /// An archive of several files, none of which is asked for, or without the one that is.
    #[error(
        "{archive} holds {held}: expected one file, or the path of one of them, such as {archive}/{one}",
        archive = .file.display(), held = listed(.names), one = .names.first().map_or("FILE", String::as_str)
    )]
    Members {
        /// The archive.
        file: PathBuf,
        /// The files in it.
        names: Vec<String>,
    },
    /// A file in an archive is encrypted or compressed in a way that is not supported.
    #[error("{}: {name} is encrypted, or not compressed with Deflate: extract it first", .file.display())]
    Member {
        /// The archive.
        file: PathBuf,
        /// The file in it.
        name: String,
    },
    /// A Parquet file in an archive or a compressed file.
    #[error("{} is Parquet inside a compressed file: decompress it first", .0.display())]
    CompressedParquet(PathBuf),
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
    /// A field that no item of the metadata has.
    #[error("--caption-field {field:?}: no item in {} has that field; its fields are {}", .file.display(), .found.join(", "))]
    NoCaptionField {
        /// The metadata.
        file: PathBuf,
        /// The field that was asked for.
        field: String,
        /// The fields that there are.
        found: Vec<String>,
    },
    /// Summaries of other titles.
    #[error("{}: no title in it is the title of an item; expected `title,sentence` under a header", .0.display())]
    NoSummary(PathBuf),
    /// A CSV file could not be written.
    #[error("cannot write {}", .file.display())]
    Csv {
        /// The file.
        file: PathBuf,
        /// What the reader says.
        source: csv::Error,
    },
    /// A Parquet file could not be read to its end.
    #[error("cannot read {}", .file.display())]
    Parquet {
        /// The file.
        file: PathBuf,
        /// What the reader says.
        source: parquet::errors::ParquetError,
    },
    /// The Parquet reader gave up on a file in the hardest way.
    #[error("{} is damaged: the Parquet reader broke off", .0.display())]
    DamagedParquet(PathBuf),
    /// A file holds nothing that can be used.
    #[error("{}: no usable row; expected {expected}", .file.display())]
    NoRows {
        /// The file.
        file: PathBuf,
        /// What a row looks like.
        expected: &'static str,
    },
    /// A rating threshold without ratings.
    #[error("--min-rating was given, but {} has no ratings", .0.display())]
    NoRatings(PathBuf),
    /// A split by time without times.
    #[error("{} tells the order of each user's items but no times: expected --split leave-one-out or users", .0.display())]
    NoTimes(PathBuf),
    /// A moment to split at that is none.
    #[error(
        "--split-time {0:?}: expected a whole number as in the file, or a date from 1678 to 2261 such as \
         2024-05-31T18:00:00Z"
    )]
    SplitTime(String),
    /// The moment to split at is of another kind than the file's.
    #[error("--split-time {0:?} and the file's timestamps are of two kinds (numbers and dates)")]
    SplitTimeKind(String),
    /// The filters leave nobody.
    #[error(
        "no user is left after filtering: expected smaller --min-user-interactions, --min-item-interactions or --min-rating"
    )]
    NobodyLeft,
    /// One side of the split is empty.
    #[error("the split leaves no {0} user: {1}")]
    EmptySide(&'static str, &'static str),
    /// The folder is in use.
    #[error("{} is not empty: expected a new folder, so that two imports never mix", .0.display())]
    NotEmpty(PathBuf),
    /// The folder has no name, so that none can be made beside it.
    #[error("{} has no name of its own: expected a folder that has", .0.display())]
    Nameless(PathBuf),
    /// A name that no file name can begin with.
    #[error(
        "--name {0:?}: expected the beginning of file names: not empty, without `/`, not starting with `.`"
    )]
    Name(String),
    /// A link that leads nowhere.
    #[error("{} is a link to nothing: expected a new folder, an empty one, or a link to an empty one", .0.display())]
    DanglingLink(PathBuf),
    /// The finished folder could not take its place by one rename.
    #[error("{} is a file system of its own: expected a folder in it", .0.display())]
    MountPoint(PathBuf),
    /// Something is held out and trained on.
    #[error("internal check failed: {user} is trained on at or after the time that is held out")]
    TimesMix {
        /// Who it is.
        user: podium_recsys::UserId,
    },
    /// What was written is not read back as it was meant.
    #[error("internal check failed: wrote {written} {what}, read back {read}")]
    ReadBack {
        /// What was counted.
        what: &'static str,
        /// How many were written.
        written: usize,
        /// How many came back.
        read: usize,
    },
    /// What was written is refused by the reader that training uses.
    #[error("what was written does not pass the checks of training")]
    Dataset(#[from] dataset::Error),
}

impl Error {
    /// The file is of no known layout: `found` is its line number `line`.
    pub(crate) fn layout(input: &Input, line: u64, found: &str, expected: &'static str) -> Self {
        Self::Layout { file: input.path.clone(), line, found: excerpt(found), expected }
    }
}

/// What a row that is not in its file's encoding may be.
fn reading_as(reads_as: Option<&(Encoding, String)>) -> String {
    reads_as.map_or(String::new(), |(encoding, text)| {
        format!("; in {encoding} it reads {text:?} (--fallback-encoding {encoding} reads such rows so)")
    })
}

/// Names, the first few of them.
fn listed(names: &[String]) -> String {
    const NAMED: usize = 10;
    match names {
        [] => "no file".to_owned(),
        few if few.len() <= NAMED => few.join(", "),
        many => format!("{}, … ({} files)", many[..NAMED].join(", "), many.len()),
    }
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("not {encoding}{}", reading_as(.reads_as.as_ref()))]
    Encoding { encoding: Encoding, reads_as: Option<(Encoding, String)> },
    #[error("a NUL byte; expected text")]
    Nul,
    #[error("a quote that is never closed; expected a quote at the end of the field")]
    OpenQuote,
    #[error("longer than {0} bytes; expected a row")]
    TooLong(u64),
    #[error("found {found} columns, expected {expected}")]
    Columns { found: usize, expected: usize },
    #[error("not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no {0}")]
    NoField(&'static str),
    #[error(
        "timestamp {0:?}, expected a whole number or a date from 1678 to 2261 such as 2024-05-31T18:00:00Z"
    )]
    Time(String),
    #[error("timestamp {text:?} looks like {found}, the rows before it look like {expected}")]
    TimeUnit { text: String, found: Unit, expected: Unit },
    #[error(
        "{items} items, {times} timestamps and {ratings} ratings in the lists of one row; expected as many of each"
    )]
    Lists { items: usize, times: usize, ratings: usize },
    #[error("timestamp {0:?} is of another kind than the rows before it (numbers and dates)")]
    TimeKind(String),
    #[error("rating {0:?}, expected a number")]
    Rating(String),
    #[error("item {0:?} has no row in the item file")]
    UnknownItem(String),
    #[error("item {0:?} has an earlier row; expected one row an item")]
    RepeatedItem(String),
    #[error("user {0:?} has an earlier row; expected one row a user")]
    RepeatedUser(String),
    #[error("item {0:?} has an empty title")]
    EmptyTitle(String),
    #[error("a title of {found} bytes, expected at most {limit} (--longest-title {limit} cuts longer ones)")]
    LongTitle { found: usize, limit: usize },
    #[error("the user's only interaction; expected at least 2: some history, and the target")]
    TooFewItems,
    #[error("no items; expected the items of the user, separated by spaces")]
    EmptyHistory,
    #[error("the same user, item and time as {0}")]
    RepeatedInteraction(Earlier),
    #[error("the same user and time as {0}: their order is unknown")]
    SameTime(Earlier),
}

impl Problem {
    /// A name for counting problems of one kind.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Encoding { .. } => "encoding",
            Self::Nul => "nul",
            Self::OpenQuote => "open_quote",
            Self::TooLong(_) => "too_long",
            Self::Columns { .. } => "columns",
            Self::Json(_) => "json",
            Self::NoField(_) => "no_field",
            Self::Time(_) => "timestamp",
            Self::TimeKind(_) => "timestamp_kind",
            Self::TimeUnit { .. } => "timestamp_unit",
            Self::Lists { .. } => "lists",
            Self::Rating(_) => "rating",
            Self::UnknownItem(_) => "unknown_item",
            Self::RepeatedItem(_) => "repeated_item",
            Self::RepeatedUser(_) => "repeated_user",
            Self::EmptyTitle(_) => "empty_title",
            Self::LongTitle { .. } => "long_title",
            Self::TooFewItems => "too_few_items",
            Self::EmptyHistory => "empty_history",
            Self::RepeatedInteraction(_) => "repeated_interaction",
            Self::SameTime(_) => "same_time",
        }
    }
}

/// Rows that were left out, by file and kind of problem.
#[derive(Debug)]
pub(crate) struct Skipped {
    allowed: bool,
    rows: BTreeMap<String, BadRows>,
}

impl Skipped {
    /// Nothing was left out yet. Where it is not `allowed`, the first bad row is an error.
    pub(crate) const fn new(allowed: bool) -> Self {
        Self { allowed, rows: BTreeMap::new() }
    }

    /// Refuses the row at `place` of `input`, or counts it as skipped.
    pub(crate) fn bad(&mut self, input: &Input, place: Place, problem: Problem) -> Result<(), Error> {
        if !self.allowed {
            return Err(Error::Row { file: input.path.clone(), place, problem });
        }
        let rows = self.rows.entry(format!("{}: {}", input.name, problem.kind())).or_default();
        rows.count += 1;
        if rows.first.len() < PLACES_NAMED {
            rows.first.push(place);
        }
        Ok(())
    }

    /// All of them.
    pub(crate) fn into_rows(self) -> BTreeMap<String, BadRows> {
        self.rows
    }
}

/// The beginning of a text that may be very long, for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
