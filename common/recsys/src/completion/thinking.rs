//! Splits a completion into think block and answer.

use std::ops::Range;

use super::form::Form;

pub(super) const OPEN: &str = "<think>";
pub(super) const CLOSE: &str = "</think>";

/// State of the think block at the end of the prompt.
///
/// Some chat templates open the block in the prompt (DeepSeek-R1-Distill, Qwen3-Thinking-2507, Qwen3.5), some close it
/// there (`enable_thinking = false` of Qwen3). A completion is parsed and written as the continuation of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ThinkingStart {
    /// The prompt has no think block: the completion opens it.
    #[default]
    Absent,
    /// The prompt opens the block: the completion begins inside it.
    Opened {
        /// Whether the prompt ends with white space, so that the completion need not start with it.
        spaced: bool,
    },
    /// The prompt closes the block: the completion is the answer.
    Closed {
        /// As above.
        spaced: bool,
    },
}

impl ThinkingStart {
    /// Determines the state from the generation prompt, the end of the prompt after the messages.
    ///
    /// The last think tag decides: some templates write only a closing one.
    pub fn of(generation_prompt: &str) -> Self {
        let spaced = generation_prompt.ends_with(char::is_whitespace);
        match (generation_prompt.rfind(OPEN), generation_prompt.rfind(CLOSE)) {
            (None, None) => Self::Absent,
            (open, close) if open > close => Self::Opened { spaced },
            _ => Self::Closed { spaced },
        }
    }

    /// Whether the prompt closes the think block, so that the completion cannot contain reasoning.
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// Returns its name in records: `absent`, `opened` or `closed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Opened { .. } => "opened",
            Self::Closed { .. } => "closed",
        }
    }
}

/// A completion split into reasoning and answer.
pub(super) struct Block<'a> {
    pub(super) thinking: Option<&'a str>,
    /// Byte range of the text that contains the list.
    pub(super) answer: Range<usize>,
    pub(super) defect: Option<Form>,
}

/// Splits `text`, which continues after `start`, at its first think block. The answer follows the last closing tag, so
/// that the list is found even with invalid tags.
pub(super) fn split(text: &str, start: ThinkingStart, required: bool) -> Block<'_> {
    let end = text.len();
    let after_last_close = text.rfind(CLOSE).map_or(0, |at| at + CLOSE.len());
    if text.trim().is_empty() {
        return Block { thinking: None, answer: end..end, defect: Some(Form::Empty) };
    }
    let first_close = text.find(CLOSE);
    let inside = match start {
        ThinkingStart::Opened { .. } => Some(0),
        ThinkingStart::Absent => text
            .find(OPEN)
            .filter(|&open| first_close.is_none_or(|close| open < close))
            .map(|open| open + OPEN.len()),
        ThinkingStart::Closed { .. } => {
            let defect = if text.contains(OPEN) || first_close.is_some() {
                Some(Form::RepeatedThinking)
            } else {
                required.then_some(Form::EmptyThinking)
            };
            return Block { thinking: None, answer: after_last_close..end, defect };
        }
    };
    let Some(inside) = inside else {
        let defect = match first_close {
            Some(_) => Some(Form::UnopenedThinking),
            None => required.then_some(Form::NoThinking),
        };
        return Block { thinking: None, answer: after_last_close..end, defect };
    };
    let Some(close) = first_close else {
        return Block {
            thinking: Some(&text[inside..]),
            answer: end..end,
            defect: Some(Form::UnclosedThinking),
        };
    };
    let thinking = &text[inside..close];
    let before = text[..inside].strip_suffix(OPEN).unwrap_or_default();
    let after = &text[close + CLOSE.len()..];
    let defect = if !before.trim().is_empty() {
        Some(Form::TextBeforeThinking)
    } else if thinking.contains(OPEN) {
        Some(Form::NestedThinking)
    } else if after.contains(OPEN) || after.contains(CLOSE) {
        Some(Form::RepeatedThinking)
    } else {
        (required && thinking.trim().is_empty()).then_some(Form::EmptyThinking)
    };
    Block { thinking: Some(thinking), answer: after_last_close..end, defect }
}
