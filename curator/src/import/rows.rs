//! Errors of an import.

use std::path::PathBuf;

use podium_files::durable;
use podium_recsys::dataset::{self, Location};

pub(crate) use super::problems::{Earlier, Problem, excerpt};

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
    /// A file cannot be read to its end.
    #[error("cannot read {} after line {line}", .path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Number of lines read before.
        line: u64,
        /// Cause.
        source: std::io::Error,
    },
    /// A kind of file that cannot be read.
    #[error("{} is {what}: {advice}", .file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// Its kind.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A field of a RecBole header has no type.
    #[error(
        "{}: field {field:?} of the header, expected a name and a type, such as user_id:token; the types are token, \
         token_seq, float and float_seq", .file.display()
    )]
    FieldType {
        /// The file.
        file: PathBuf,
        /// The field.
        field: String,
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

/// Lists the first few names.
fn listed(names: &[String]) -> String {
    const NAMED: usize = 10;
    match names {
        [] => "no file".to_owned(),
        few if few.len() <= NAMED => few.join(", "),
        many => format!("{}, … ({} files)", many[..NAMED].join(", "), many.len()),
    }
}
