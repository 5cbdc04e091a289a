//! Parses completions: `<think>…</think>`, then a ranked list of candidates, best first. A prompt may already contain a
//! part of the think block ([`ThinkingStart`]).
//!
//! Parsing never fails: every text has a [`Form`], which names the first defect of a malformed answer. Training reports
//! the fraction of each defect.

mod list;
mod thinking;
mod write;

use std::fmt;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use thinking::ThinkingStart;
pub use write::{ThinkingIsOver, after, empty_block, entry, white_space, write};

use crate::dataset::Catalogue;
use crate::ids::ItemId;

/// Required format of completions: `[answer]` of the run file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Number of candidates to list.
    pub list_length: usize,
    /// Layout of a listed candidate.
    pub layout: Layout,
    /// Whether a completion without reasoning is malformed.
    pub require_thinking: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { list_length: 3, layout: Layout::Titled, require_thinking: true }
    }
}

/// Layout of a listed candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Consecutive `[ITEM_17]`, optionally separated by white space.
    Ids,
    /// `[ITEM_17] Title` on a separate line. The title is not checked and may be missing.
    Titled,
}

/// Format of a completion. Of several defects the first in this order is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// No defect.
    WellFormed,
    /// Only white space.
    Empty,
    /// A required think block is missing.
    NoThinking,
    /// `</think>` without a preceding `<think>` in the completion or at the end of the prompt.
    UnopenedThinking,
    /// `<think>` is never closed.
    UnclosedThinking,
    /// Text before `<think>`.
    TextBeforeThinking,
    /// `<think>` inside the think block, which the prompt may have opened.
    NestedThinking,
    /// A think tag after the think block, which the prompt may have closed.
    RepeatedThinking,
    /// A required think block contains only white space.
    EmptyThinking,
    /// Nothing follows the think block.
    NoList,
    /// The answer contains text other than listed items.
    TextOutsideList,
    /// An item is not spelled `[ITEM_<digits>]`: leading zeros, a sign, other digits, no bracket.
    MisspelledItem,
    /// A listed item is not in the catalogue.
    InventedItem,
    /// A listed item is in the catalogue, but not among the candidates.
    NotACandidate,
    /// A candidate is listed twice.
    RepeatedItem,
    /// The list is shorter than required.
    ShortList,
    /// The list is longer than required.
    LongList,
}

impl Form {
    /// All forms, in order of precedence.
    pub const ALL: [Self; 17] = [
        Self::WellFormed,
        Self::Empty,
        Self::NoThinking,
        Self::UnopenedThinking,
        Self::UnclosedThinking,
        Self::TextBeforeThinking,
        Self::NestedThinking,
        Self::RepeatedThinking,
        Self::EmptyThinking,
        Self::NoList,
        Self::TextOutsideList,
        Self::MisspelledItem,
        Self::InventedItem,
        Self::NotACandidate,
        Self::RepeatedItem,
        Self::ShortList,
        Self::LongList,
    ];

    /// Returns its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WellFormed => "well_formed",
            Self::Empty => "empty",
            Self::NoThinking => "no_thinking",
            Self::UnopenedThinking => "unopened_thinking",
            Self::UnclosedThinking => "unclosed_thinking",
            Self::TextBeforeThinking => "text_before_thinking",
            Self::NestedThinking => "nested_thinking",
            Self::RepeatedThinking => "repeated_thinking",
            Self::EmptyThinking => "empty_thinking",
            Self::NoList => "no_list",
            Self::TextOutsideList => "text_outside_list",
            Self::MisspelledItem => "misspelled_item",
            Self::InventedItem => "invented_item",
            Self::NotACandidate => "not_a_candidate",
            Self::RepeatedItem => "repeated_item",
            Self::ShortList => "short_list",
            Self::LongList => "long_list",
        }
    }

    /// Whether the answer has no defect.
    pub const fn is_well_formed(self) -> bool {
        matches!(self, Self::WellFormed)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
    /// The title after it, trimmed; empty in [`Layout::Ids`].
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

/// Parses the completion `text`, up to its stop token.
pub fn parse<'a>(text: &'a str, expected: &Expected<'_>) -> Parsed<'a> {
    let block = thinking::split(text, expected.thinking_start, expected.options.require_thinking);
    let list = list::read(text, block.answer, expected);
    let form = block.defect.or(list.defect).unwrap_or(Form::WellFormed);
    Parsed { form, thinking: block.thinking, ranking: list.ranking }
}

#[cfg(test)]
mod tests;
