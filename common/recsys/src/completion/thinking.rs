//! The think block of a completion, and where the answer starts.

use std::ops::Range;

use super::Form;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A completion cut into reasoning and answer.
pub(super) struct Block<'a> {
    pub(super) thinking: Option<&'a str>,
    /// Bytes of the text in which to look for the list.
    pub(super) answer: Range<usize>,
    pub(super) defect: Option<Form>,
}

/// Cuts `text` at its first think block. The answer is what follows the last closing tag, so that a list is found (and
/// shown to whoever reads samples) even where the tags are wrong.
pub(super) fn split(text: &str, required: bool) -> Block<'_> {
    let end = text.len();
    let after_last_close = text.rfind(CLOSE).map_or(0, |at| at + CLOSE.len());
    if text.trim().is_empty() {
        return Block { thinking: None, answer: end..end, defect: Some(Form::Empty) };
    }
    let open = text.find(OPEN);
    let first_close = text.find(CLOSE);
    let Some(open) = open.filter(|&open| first_close.is_none_or(|close| open < close)) else {
        let defect = match first_close {
            Some(_) => Some(Form::UnopenedThinking),
            None => required.then_some(Form::NoThinking),
        };
        return Block { thinking: None, answer: after_last_close..end, defect };
    };
    let inside = open + OPEN.len();
    let Some(close) = first_close else {
        return Block {
            thinking: Some(&text[inside..]),
            answer: end..end,
            defect: Some(Form::UnclosedThinking),
        };
    };
    let thinking = &text[inside..close];
    let after = &text[close + CLOSE.len()..];
    let defect = if !text[..open].trim().is_empty() {
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
