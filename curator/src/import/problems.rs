//! Defects of rows.

use std::fmt;

use podium_recsys::dataset::Location;

use super::encoding::Encoding;
use super::unit::Unit;

/// The field of an item's id, in [`Problem::NoField`].
pub(crate) const ITEM_ID: &str = "item id";

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
    #[error("neither a JSON object nor a Python dictionary, which begin with {{; expected one per line")]
    NotAnObject,
    #[error("not a Python dictionary: {expected} expected at character {at}")]
    Literal { at: usize, expected: &'static str },
    #[error("no {0}")]
    NoField(&'static str),
    #[error("{what} {found}, expected a text or a whole number")]
    Id { what: &'static str, found: String },
    #[error(
        "timestamp {0:?}, expected a whole number or a date from 1678 to 2261 such as 2024-05-31T18:00:00Z"
    )]
    Time(String),
    #[error("timestamp {text:?}, expected a date such as {example}")]
    Date { text: String, example: &'static str },
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
    #[error("item {0:?} has a script of its web page as title")]
    ScriptTitle(String),
    #[error(
        "impression {0:?}, expected a news id and whether it was clicked, such as N1-1 or N1-0 (the test part of MIND has \
         no clicks and cannot be imported)"
    )]
    Impression(String),
    #[error("a rating before the first movie; expected a line such as `1:`")]
    NoMovie,
    #[error("history {0:?}, expected a list of item ids such as [1, 2]")]
    History(String),
    #[error(
        "the history does not end the user's earlier rows; expected the rows of all files in their order"
    )]
    BrokenHistory,
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
    /// Whether public data sets are known to have such rows: they are complete, and what they refer to or repeat is
    /// the reason to leave them out.
    pub(crate) fn is_gap(&self) -> bool {
        matches!(
            self,
            Self::UnknownItem(_)
                | Self::RepeatedItem(_)
                | Self::EmptyTitle(_)
                | Self::ScriptTitle(_)
                | Self::NoField(ITEM_ID)
                | Self::TooFewItems
                | Self::RepeatedInteraction(_)
        )
    }

    /// Returns the name under which problems of this kind are counted.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Encoding { .. } => "encoding",
            Self::Nul => "nul",
            Self::OpenQuote => "open_quote",
            Self::TooLong(_) => "too_long",
            Self::Columns { .. } => "columns",
            Self::Json(_) => "json",
            Self::NotAnObject => "not_an_object",
            Self::Literal { .. } => "literal",
            Self::NoField(_) => "no_field",
            Self::Id { .. } => "id",
            Self::Time(_) | Self::Date { .. } => "timestamp",
            Self::TimeKind(_) => "timestamp_kind",
            Self::TimeUnit { .. } => "timestamp_unit",
            Self::Lists { .. } => "lists",
            Self::Rating(_) => "rating",
            Self::UnknownItem(_) => "unknown_item",
            Self::RepeatedItem(_) => "repeated_item",
            Self::RepeatedUser(_) => "repeated_user",
            Self::EmptyTitle(_) => "empty_title",
            Self::LongTitle { .. } => "long_title",
            Self::ScriptTitle(_) => "script_title",
            Self::Impression(_) => "impression",
            Self::NoMovie => "no_movie",
            Self::History(_) => "history",
            Self::BrokenHistory => "broken_history",
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

/// Describes the likely encoding of a row that is not in its file's encoding.
fn reading_as(reads_as: Option<&(Encoding, String)>) -> String {
    reads_as.map_or(String::new(), |(encoding, text)| {
        format!("; in {encoding} it reads {text:?} (--fallback-encoding {encoding} reads such rows in that encoding)")
    })
}
