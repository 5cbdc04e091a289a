//! Defects of rows in external files and their handling.

use std::fmt;
use std::path::PathBuf;

use podium_files::durable;
use podium_recsys::dataset::{self, Location};

use super::encoding::Encoding;
use super::unit::Unit;

/// An error of an import. Existing files are unchanged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An operation of the operating system failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The failed operation.
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file can be read only once.
    #[error("{}: expected a regular file, not a pipe: it is read more than once", .0.display())]
    NotRegular(PathBuf),
    /// A file could not be written durably.
    #[error(transparent)]
    Durable(#[from] durable::Error),
    /// A row is unusable and rows are not skipped.
    #[error("{}, {location}: {problem} (--skip-bad-rows skips and counts such rows)", .file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Location in the file.
        location: Location,
        /// The defect and the expected format.
        problem: Problem,
    },
    /// The file has none of the supported layouts.
    #[error("{}, line {line}: {found:?}: expected {expected}", .file.display())]
    Layout {
        /// The file.
        file: PathBuf,
        /// Number of its first nonblank line.
        line: u64,
        /// Beginning of that line.
        found: String,
        /// Supported layouts.
        expected: &'static str,
    },
    /// A table has no column of that name.
    #[error("{}: there is no column {column:?}; it has {}", .file.display(), .found.join(", "))]
    NoColumn {
        /// The file.
        file: PathBuf,
        /// The requested name.
        column: String,
        /// The existing names.
        found: Vec<String>,
    },
    /// A table has several columns of that name.
    #[error("{}: there are {count} columns {column:?}: expected one", .file.display())]
    RepeatedColumn {
        /// The file.
        file: PathBuf,
        /// The requested name.
        column: String,
        /// Number of such columns.
        count: usize,
    },
    /// A folder without data files.
    #[error("{}: no data file; expected files whose names do not begin with `_` or `.`", .0.display())]
    EmptyFolder(PathBuf),
    /// A zip archive cannot be read.
    #[error("cannot read {}", .file.display())]
    Zip {
        /// The archive.
        file: PathBuf,
        /// Error of the reader.
        source: zip::result::ZipError,
    },
    /// An archive of several files without a selected one.
    #[error(
        "{archive} contains {held}: expected one file, or the path of one of them, such as {archive}/{one}",
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
    /// A field that no item of the metadata has.
    #[error("--caption-field {field:?}: no item in {} has that field; its fields are {}", .file.display(), .found.join(", "))]
    NoCaptionField {
        /// The metadata.
        file: PathBuf,
        /// The requested field.
        field: String,
        /// The existing fields.
        found: Vec<String>,
    },
    /// Summaries of unknown titles.
    #[error("{}: no title in it is the title of an item; expected `title,sentence` under a header", .0.display())]
    NoSummary(PathBuf),
    /// A CSV file could not be written.
    #[error("cannot write {}", .file.display())]
    Csv {
        /// The file.
        file: PathBuf,
        /// Error of the writer.
        source: csv::Error,
    },
    /// A Parquet file could not be read to its end.
    #[error("cannot read {}", .file.display())]
    Parquet {
        /// The file.
        file: PathBuf,
        /// Error of the reader.
        source: parquet::errors::ParquetError,
    },
    /// The Parquet reader panicked.
    #[error("{} is damaged: the Parquet reader panicked", .0.display())]
    DamagedParquet(PathBuf),
    /// A file has no usable row.
    #[error("{}: no usable row; expected {expected}", .file.display())]
    NoRows {
        /// The file.
        file: PathBuf,
        /// Format of a row.
        expected: &'static str,
    },
    /// A minimum rating without ratings.
    #[error("--min-rating was given, but {} has no ratings", .0.display())]
    NoRatings(PathBuf),
    /// A split by time without times.
    #[error("{} has the order of each user's items but no times: expected --split leave-one-out or users", .0.display())]
    NoTimes(PathBuf),
    /// A time that separates parts is invalid.
    #[error(
        "{flag} {text:?}: expected a whole number as in the file, or a date from 1678 to 2261 such as \
         2024-05-31T18:00:00Z"
    )]
    SplitTime {
        /// Name of the flag.
        flag: &'static str,
        /// Its value.
        text: String,
    },
    /// A time that separates parts is of another kind than the file's times.
    #[error("{flag} {text:?} and the file's timestamps are of different kinds (numbers and dates)")]
    SplitTimeKind {
        /// Name of the flag.
        flag: &'static str,
        /// Its value.
        text: String,
    },
    /// The validation period is empty.
    #[error(
        "the validation part would begin at or after the split time: expected a --validation-time before --split-time, a \
         smaller --validation-share, or --no-validation"
    )]
    ValidationTime,
    /// No user is left to train on.
    #[error(
        "--test-share {test} and --validation-share {validation}: expected a sum below 1, so that users remain to train on"
    )]
    Shares {
        /// Share of the test part.
        test: f64,
        /// Share of the validation part.
        validation: f64,
    },
    /// No user remains after filtering.
    #[error(
        "no user remains after filtering: expected smaller --min-user-interactions, --min-item-interactions or --min-rating"
    )]
    NobodyLeft,
    /// One side of the split is empty.
    #[error("the split leaves no {0} user: {1}")]
    EmptySide(&'static str, &'static str),
    /// The folder is not empty.
    #[error("{} is not empty: expected a new or empty folder", .0.display())]
    NotEmpty(PathBuf),
    /// The folder has no name, so that no sibling can be created.
    #[error("{} has no name: expected a folder with a name", .0.display())]
    Nameless(PathBuf),
    /// An invalid prefix of file names.
    #[error("--name {0:?}: expected a prefix of file names: not empty, without `/`, not starting with `.`")]
    Name(String),
    /// A dangling link.
    #[error("{} is a dangling link: expected a new folder, an empty one, or a link to an empty one", .0.display())]
    DanglingLink(PathBuf),
    /// The folder is a mount point, which one rename cannot replace.
    #[error("{} is a mount point: expected a folder below it", .0.display())]
    MountPoint(PathBuf),
    /// A held-out target is in the training data.
    #[error("internal check failed: {user} is trained on at or after the time that is held out")]
    TimesMix {
        /// The user.
        user: podium_recsys::UserId,
    },
    /// The files that were read back differ from the written ones.
    #[error("internal check failed: wrote {written} {what}, read back {read}")]
    ReadBack {
        /// The counted objects.
        what: &'static str,
        /// Number written.
        written: usize,
        /// Number read back.
        read: usize,
    },
    /// The reader of training rejects the written files.
    #[error("the written data set does not pass the checks of training")]
    Dataset(#[from] dataset::Error),
}

/// Describes the likely encoding of a row that is not in its file's encoding.
fn reading_as(reads_as: Option<&(Encoding, String)>) -> String {
    reads_as.map_or(String::new(), |(encoding, text)| {
        format!("; in {encoding} it reads {text:?} (--fallback-encoding {encoding} reads such rows in that encoding)")
    })
}

/// Lists the first few names.
fn listed(names: &[String]) -> String {
    const NAMED: usize = 10;
    match names {
        [] => "no file".to_owned(),
        few if few.len() <= NAMED => few.join(", "),
        many => format!("{}, … ({} files)", many[..NAMED].join(", "), many.len()),
    }
}

/// Defect of a row.
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
    Json(String),
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
    #[error("item {0:?} has an earlier row; expected one row per item")]
    RepeatedItem(String),
    #[error("user {0:?} has an earlier row; expected one row per user")]
    RepeatedUser(String),
    #[error("item {0:?} has an empty title")]
    EmptyTitle(String),
    #[error(
        "a title of {found} bytes, expected at most {limit} (--longest-title {limit} truncates longer ones)"
    )]
    LongTitle { found: usize, limit: usize },
    #[error("the user's only interaction; expected at least 2: history and target")]
    TooFewItems,
    #[error("no items; expected the items of the user, separated by spaces")]
    EmptyHistory,
    #[error("the same user, item and time as {0}")]
    RepeatedInteraction(Earlier),
    #[error("the same user and time as {0}: their order is unknown")]
    SameTime(Earlier),
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

impl Problem {
    /// Returns the name under which problems of this kind are counted.
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

/// An earlier row that another one repeats.
#[derive(Debug)]
pub(crate) struct Earlier {
    pub(crate) location: Location,
    /// Its file, if it is another one.
    pub(crate) file: Option<String>,
}

impl fmt::Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.fmt(f)?;
        self.file.iter().try_for_each(|file| write!(f, " of {file}"))
    }
}

/// Returns the beginning of a text, for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
