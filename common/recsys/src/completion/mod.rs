//! Reading a completion: `<think>…</think>` and then a ranked list of candidates, best first. What the prompt has of the
//! think block ([`ThinkingStart`]) is part of the reading.
//!
//! Any text is read, whatever a policy comes up with; nothing here can fail. What is wrong with an answer is named by
//! [`Form`], because each defect is watched as a share of its own while a policy trains.

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

/// What a completion should look like: `[answer]` of the run file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How many candidates are to be listed.
    pub list_length: usize,
    /// How a candidate is listed.
    pub layout: Layout,
    /// Whether a completion without reasoning is malformed.
    pub require_thinking: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { list_length: 3, layout: Layout::Titled, require_thinking: true }
    }
}

/// How a candidate is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `[ITEM_17]` after `[ITEM_17]`, with white space or nothing between.
    Ids,
    /// `[ITEM_17] Title` on a line of its own. The title is kept as it is written, and may be missing.
    Titled,
}

/// What a completion's shape is. Of several defects the first in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As asked for.
    WellFormed,
    /// Nothing but white space.
    Empty,
    /// There is no think block although one is required.
    NoThinking,
    /// `</think>` comes without a `<think>` before it, in the completion or at the end of the prompt.
    UnopenedThinking,
    /// `<think>` is never closed.
    UnclosedThinking,
    /// There is text before `<think>`.
    TextBeforeThinking,
    /// A `<think>` stands inside the think block, which the prompt may have opened.
    NestedThinking,
    /// A think tag follows the think block, which the prompt may have closed.
    RepeatedThinking,
    /// The think block is white space although one is required.
    EmptyThinking,
    /// Nothing follows the think block.
    NoList,
    /// There is something in the answer that is no listed item.
    TextOutsideList,
    /// An item is not spelled `[ITEM_<digits>]`: leading zeros, a sign, other digits, no bracket.
    MisspelledItem,
    /// A listed item is not in the catalogue.
    InventedItem,
    /// A listed item is in the catalogue but not among the candidates.
    NotACandidate,
    /// A candidate is listed twice.
    RepeatedItem,
    /// The list is shorter than asked for.
    ShortList,
    /// The list is longer than asked for.
    LongList,
}

impl Form {
    /// All forms, in the order in which defects count.
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

    /// Its name in metrics.
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

    /// Whether the answer is as asked for.
    pub const fn is_well_formed(self) -> bool {
        matches!(self, Self::WellFormed)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a completion is read against.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// What it should look like.
    pub options: &'a Options,
    /// What it may list.
    pub candidates: &'a [ItemId],
    /// Tells invented items from items that exist but were not offered.
    pub catalogue: &'a Catalogue,
    /// How the prompt ends.
    pub thinking_start: ThinkingStart,
}

/// What a completion says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// Its shape.
    pub form: Form,
    /// What stands in the think block, to the end of the text if the block is never closed.
    pub thinking: Option<&'a str>,
    /// The items it lists, best first, also if the answer is malformed. Misspelled ones are not in it.
    pub ranking: Vec<Listed<'a>>,
}

/// An item of a completion's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Which item.
    pub item: ItemId,
    /// The title written after it, without white space around; empty in [`Layout::Ids`].
    pub title: &'a str,
    /// Where in the text it is listed, title included, in bytes.
    pub span: Range<usize>,
    /// Whether it may be listed there.
    pub standing: Standing,
}

/// Whether an item may be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A candidate, listed for the first time.
    Candidate,
    /// Listed before.
    Repeated,
    /// In the catalogue, but not among the candidates.
    NotACandidate,
    /// In no catalogue.
    Invented,
}

/// Reads the completion `text`, as the policy wrote it up to its stop token.
pub fn parse<'a>(text: &'a str, expected: &Expected<'_>) -> Parsed<'a> {
    let block = thinking::split(text, expected.thinking_start, expected.options.require_thinking);
    let list = list::read(text, block.answer, expected);
    let form = block.defect.or(list.defect).unwrap_or(Form::WellFormed);
    Parsed { form, thinking: block.thinking, ranking: list.ranking }
}

#[cfg(test)]
mod tests;
