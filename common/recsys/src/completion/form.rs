//! The format of a completion: well-formed, or its first defect.

use std::fmt;

use serde::{Deserialize, Serialize};

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
