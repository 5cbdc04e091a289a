//! The shortening of a prompt, and the units of its size.

/// Minimum length to which titles are truncated; shorter ones would not identify their items.
pub(super) const SHORTEST_TITLE_CHARS: usize = 16;

/// Shortening of a prompt to its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shortening {
    /// Maximum length of captions in characters; 0: no captions. `None`: not shortened.
    pub caption_chars: Option<usize>,
    /// Number of oldest history items that were dropped.
    pub history_left_out: usize,
    /// Maximum length of titles in characters. `None`: not shortened.
    pub title_chars: Option<usize>,
}

impl Shortening {
    /// Whether anything was shortened.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Unit of a prompt's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Tokens of the policy's tokenizer, including the chat template.
    Tokens,
    /// Characters of the messages.
    Chars,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tokens => "tokens",
            Self::Chars => "characters",
        })
    }
}
