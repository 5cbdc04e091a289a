//! Input and result of parsing a completion.

use std::ops::Range;

use super::form::Form;
use super::options::Options;
use super::thinking::ThinkingStart;
use crate::dataset::Catalogue;
use crate::ids::ItemId;

/// Context for parsing a completion.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Required format.
    pub options: &'a Options,
    /// The items that may be listed.
    pub candidates: &'a [ItemId],
    /// Distinguishes invented items from existing items that are not candidates.
    pub catalogue: &'a Catalogue,
    /// State of the think block at the end of the prompt.
    pub thinking_start: ThinkingStart,
}

/// A parsed completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// Its format.
    pub form: Form,
    /// Content of the think block, up to the end of the text if the block is not closed.
    pub thinking: Option<&'a str>,
    /// The listed items, best first, including those of malformed answers; without misspelled ones.
    pub ranking: Vec<Listed<'a>>,
}

/// An item of a completion's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The item.
    pub item: ItemId,
    /// The title after it, trimmed; empty in [`Layout::Ids`](super::Layout::Ids).
    pub title: &'a str,
    /// Byte range of the entry in the text, including the title.
    pub span: Range<usize>,
    /// Whether the item is a valid entry.
    pub status: ListedStatus,
}

/// Validity of a listed item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedStatus {
    /// A candidate, listed for the first time.
    Candidate,
    /// Listed earlier.
    Repeated,
    /// In the catalogue, but not among the candidates.
    NotACandidate,
    /// Not in the catalogue.
    Invented,
}
