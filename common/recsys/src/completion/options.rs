//! The required format of completions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
