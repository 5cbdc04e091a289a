//! Automaton of an answer, over the bytes of a completion's text.
//!
//! ```text
//! completion = reasoning answer stop            if reasoning is required, or open at the end of the prompt
//!            | [gap reasoning] answer stop      if reasoning is optional
//!            | answer stop                      if the prompt has closed the reasoning
//! reasoning  = any text up to and including the first "</think>", starting with "<think>" if it is optional
//! answer     = gap item (gap item)…             `count` different items
//! gap        = at most two of " " and "\n"; between items on separate lines at least one "\n"
//! ```

use std::ops::Range;

use crate::texts::Texts;

const OPEN: &[u8] = b"<think>";
const CLOSE: &[u8] = b"</think>";

/// Largest number of white space characters in a gap: an empty line between the reasoning and the list.
const LONGEST_GAP: u8 = 2;

/// Items that cannot be listed, or not be distinguished in an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The list is empty or longer than the number of items.
    #[error(
        "an answer is to list {count} of {items} items: expected at least 1 and at most all of 65,535 or fewer"
    )]
    Count {
        /// Length of the list.
        count: usize,
        /// Number of items.
        items: usize,
    },
    /// The text of an item cannot be part of a list.
    #[error("item {text:?} {defect}")]
    Item {
        /// Its text, shortened.
        text: String,
        /// The defect.
        defect: &'static str,
    },
    /// The text of one item is a prefix of another's, or equal to it.
    #[error("item {text:?} is a prefix of another item: expected texts of which none is a prefix of another")]
    Beginning {
        /// The shorter text, shortened.
        text: String,
    },
}

/// Whether reasoning comes before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reasoning {
    /// The answer follows the first `</think>`: reasoning is required, or open at the end of the prompt.
    First,
    /// A think block before the answer is optional.
    Optional,
    /// The prompt has closed the think block: the completion is the answer only.
    Over,
}

/// The set of valid answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The items' texts, ascending.
    items: Texts,
    count: usize,
    lines: bool,
    reasoning: Reasoning,
}

/// State of the automaton.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    position: Position,
    /// The items listed so far, ascending. Their order does not affect which bytes may follow.
    listed: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Position {
    /// In the reasoning, after this many bytes of its closing tag.
    Reasoning { closing: u8 },
    /// After this many bytes of the opening tag.
    Opening { opening: u8 },
    /// In white space: before the first item or between two.
    Gap(Gap),
    /// After `depth` bytes of one of the items `first..end`.
    Item { first: u16, end: u16, depth: u32 },
    /// All items are listed.
    End,
    /// The text can no longer become a valid answer.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Gap {
    /// Whether an item may follow; false until a required line break.
    open: bool,
    /// Whether reasoning may follow.
    reasoning: bool,
    length: u8,
}

impl Gap {
    const fn before_answer(reasoning: bool) -> Self {
        Self { open: true, reasoning, length: 0 }
    }

    /// Returns the gap with one more space or line feed; `None` if it becomes too long.
    fn after(self, byte: u8) -> Option<Self> {
        let gap = Self { open: self.open || byte == b'\n', length: self.length + 1, ..self };
        (gap.length < LONGEST_GAP || (gap.length == LONGEST_GAP && gap.open)).then_some(gap)
    }
}

impl Answer {
    /// Creates the automaton of answers that list `count` different `items`, on separate lines if `lines`.
    pub fn new<'a>(
        items: impl IntoIterator<Item = &'a str>,
        count: usize,
        lines: bool,
        reasoning: Reasoning,
    ) -> Result<Self, Error> {
        let mut items: Vec<&str> = items.into_iter().collect();
        if count == 0 || count > items.len() || items.len() > usize::from(u16::MAX) {
            return Err(Error::Count { count, items: items.len() });
        }
        items.sort_unstable();
        for text in &items {
            if let Some(defect) = defect(text, lines) {
                return Err(Error::Item { text: shortened(text), defect });
            }
        }
        if let Some(pair) = items.windows(2).find(|pair| pair[1].starts_with(pair[0])) {
            return Err(Error::Beginning { text: shortened(pair[0]) });
        }
        Ok(Self { items: Texts::new(items.iter().map(|text| text.as_bytes())), count, lines, reasoning })
    }

    /// The state before the first byte of a completion.
    pub fn start(&self) -> State {
        let position = match self.reasoning {
            Reasoning::First => Position::Reasoning { closing: 0 },
            Reasoning::Optional => Position::Gap(Gap::before_answer(true)),
            Reasoning::Over => Position::Gap(Gap::before_answer(false)),
        };
        State { position, listed: Vec::new() }
    }

    /// Returns the state after a text, which is free if the text is not a prefix of an answer.
    pub fn after(&self, state: &State, text: &[u8]) -> State {
        let mut state = state.clone();
        for byte in text {
            match self.step(&state, *byte) {
                Some(next) => state = next,
                None => return State { position: Position::Lost, ..state },
            }
        }
        state
    }

    /// Returns the state after one more byte; `None` if the byte may not follow.
    pub(crate) fn step(&self, state: &State, byte: u8) -> Option<State> {
        let listed = || state.listed.clone();
        let position = match &state.position {
            Position::Reasoning { closing } => match matched(CLOSE, *closing, byte) {
                closing if usize::from(closing) == CLOSE.len() => Position::Gap(Gap::before_answer(false)),
                closing => Position::Reasoning { closing },
            },
            Position::Opening { opening } => {
                if OPEN[usize::from(*opening)] != byte {
                    return None;
                }
                match opening + 1 {
                    opening if usize::from(opening) == OPEN.len() => Position::Reasoning { closing: 0 },
                    opening => Position::Opening { opening },
                }
            }
            Position::Gap(gap) if byte == OPEN[0] => {
                gap.reasoning.then_some(Position::Opening { opening: 1 })?
            }
            Position::Gap(gap) if matches!(byte, b' ' | b'\n') => Position::Gap(gap.after(byte)?),
            Position::Gap(gap) if gap.open => return self.item(listed(), 0..self.items.len(), 0, byte),
            Position::Item { first, end, depth } => {
                return self.item(listed(), usize::from(*first)..usize::from(*end), *depth, byte);
            }
            Position::Gap(_) | Position::End | Position::Lost => return None,
        };
        Some(State { position, listed: listed() })
    }

    /// Consumes one more byte of an item of `node`.
    fn item(&self, mut listed: Vec<u16>, node: Range<usize>, depth: u32, byte: u8) -> Option<State> {
        let node = self.items.child(node, depth as usize, byte);
        let (first, end, depth) = (node.start as u16, node.end as u16, depth + 1);
        if (first..end).all(|item| listed.binary_search(&item).is_ok()) {
            return None;
        }
        if self.items.ending(node, depth as usize).is_empty() {
            return Some(State { position: Position::Item { first, end, depth }, listed });
        }
        // No other item continues from here, so this item is complete.
        let position = listed.partition_point(|item| *item < first);
        listed.insert(position, first);
        let position = if listed.len() == self.count {
            Position::End
        } else {
            Position::Gap(Gap { open: !self.lines, reasoning: false, length: 0 })
        };
        Some(State { position, listed })
    }

    /// The texts of the items, ascending.
    pub(crate) fn items(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.items.len()).map(|item| self.items.get(item))
    }
}

impl State {
    /// Whether any token may follow: in the reasoning, and after an invalid text.
    pub(crate) const fn is_free(&self) -> bool {
        matches!(self.position, Position::Reasoning { .. } | Position::Lost)
    }

    /// Whether the current item can be completed. `live`: for each item and number of its bytes, whether tokens can
    /// spell the rest.
    pub(crate) fn is_live(&self, live: &[Vec<bool>]) -> bool {
        match self.position {
            Position::Item { first, end, depth } => (first..end).any(|item| {
                live[usize::from(item)][depth as usize] && self.listed.binary_search(&item).is_err()
            }),
            Position::Reasoning { .. } | Position::Opening { .. } | Position::Gap(_) | Position::End => true,
            Position::Lost => false,
        }
    }

    pub(crate) const fn is_reasoning(&self) -> bool {
        matches!(self.position, Position::Reasoning { .. })
    }

    /// Whether the answer is complete.
    pub const fn is_end(&self) -> bool {
        matches!(self.position, Position::End)
    }

    /// Whether only items may follow: the list comes next or has begun.
    pub const fn is_in_list(&self) -> bool {
        matches!(self.position, Position::Gap(Gap { reasoning: false, .. }) | Position::Item { .. })
    }
}

/// Returns the number of bytes of `tag` at the end of the text after one more byte. The tag's first byte occurs only
/// once in it.
fn matched(tag: &[u8], before: u8, byte: u8) -> u8 {
    if tag[usize::from(before)] == byte { before + 1 } else { u8::from(tag[0] == byte) }
}

fn defect(text: &str, lines: bool) -> Option<&'static str> {
    if text.is_empty() {
        Some("is empty: expected a text")
    } else if text.starts_with([' ', '\n', '<']) {
        Some("begins with white space or `<`: expected another first letter")
    } else if text.contains("<think>") || text.contains("</think>") {
        Some("contains a think tag: expected none in a list")
    } else if lines && text.contains('\n') {
        Some("contains a line break: expected one line")
    } else {
        None
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
