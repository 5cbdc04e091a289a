//! Writes well-formed completions, for the policy to imitate.

use std::fmt::Write as _;

use super::options::Layout;
use super::thinking::{CLOSE, OPEN, ThinkingStart};
use crate::dataset::Catalogue;
use crate::ids::ItemId;

/// Texts that a title in a list must not contain: they would end the line or be parsed as something else.
const NOT_IN_A_LIST: [&str; 4] = ["\n", "[ITEM_", "<think>", "</think>"];

/// A completion with reasoning cannot follow a prompt that closes the think block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the completion reasons, and the chat template closes the think block before it: expected a completion without \
     reasoning, or a template (model.enable_thinking) that leaves the block to the completion"
)]
pub struct ThinkingIsOver;

/// Writes the completion with the reasoning `thinking` and the list `ranking`, best first, for a prompt without a think
/// block. [`super::parse()`] is the inverse; [`after`] adapts it to other prompts.
pub fn write(thinking: Option<&str>, ranking: &[ItemId], catalogue: &Catalogue, layout: Layout) -> String {
    let (break_line, gap) = white_space(layout);
    let mut text = String::new();
    if let Some(thinking) = thinking {
        write!(text, "{OPEN}{break_line}{thinking}{break_line}{CLOSE}{gap}")
            .expect("writing to a String cannot fail");
    }
    let entries: Vec<String> = ranking.iter().map(|id| entry(*id, catalogue, layout)).collect();
    text + &entries.join(break_line)
}

/// Returns the part of `completion`, written by [`write()`], that continues a prompt with the state `start`.
///
/// Prompt and completion together equal those without a think block in the prompt. If the prompt opens the block and
/// `completion` has no reasoning, an empty block is closed first.
pub fn after(start: ThinkingStart, completion: &str, layout: Layout) -> Result<String, ThinkingIsOver> {
    match start {
        ThinkingStart::Absent => Ok(completion.to_owned()),
        ThinkingStart::Opened { spaced } => match completion.trim_start().strip_prefix(OPEN) {
            Some(rest) if spaced => Ok(rest.strip_prefix([' ', '\n']).unwrap_or(rest).to_owned()),
            Some(rest) => Ok(rest.to_owned()),
            None => Ok(empty_block(start, layout) + white_space(layout).1 + completion),
        },
        ThinkingStart::Closed { spaced } => {
            let answer =
                match completion.trim_start().strip_prefix(OPEN).and_then(|rest| rest.split_once(CLOSE)) {
                    Some((thinking, answer)) if thinking.trim().is_empty() => answer.trim_start(),
                    Some(_) => return Err(ThinkingIsOver),
                    None => completion,
                };
            Ok(if spaced { answer.to_owned() } else { format!("{}{answer}", white_space(layout).1) })
        }
    }
}

/// Returns the text that completes an empty think block after `start`; empty if the prompt closes the block.
pub fn empty_block(start: ThinkingStart, layout: Layout) -> String {
    let (break_line, _) = white_space(layout);
    match start {
        ThinkingStart::Absent => format!("{OPEN}{break_line}{break_line}{CLOSE}"),
        ThinkingStart::Opened { spaced: false } => format!("{break_line}{break_line}{CLOSE}"),
        ThinkingStart::Opened { spaced: true } => format!("{break_line}{CLOSE}"),
        ThinkingStart::Closed { .. } => String::new(),
    }
}

/// Returns the separators of think block and entries, and of block and list.
pub const fn white_space(layout: Layout) -> (&'static str, &'static str) {
    match layout {
        Layout::Ids => (" ", " "),
        Layout::Titled => ("\n", "\n\n"),
    }
}

/// Returns an item as an answer lists it, without a title that cannot be part of a list.
pub fn entry(id: ItemId, catalogue: &Catalogue, layout: Layout) -> String {
    let title = match layout {
        Layout::Ids => "",
        Layout::Titled => catalogue.get(id).map_or("", |item| item.title.trim()),
    };
    if title.is_empty() || NOT_IN_A_LIST.iter().any(|part| title.contains(part)) {
        id.to_string()
    } else {
        format!("{id} {title}")
    }
}
