//! The automaton of an answer, over the bytes of a completion's text.
//!
//! ```text
//! completion = reasoning answer stop            where reasoning is required, or has begun in the prompt
//!            | [gap reasoning] answer stop      where it is optional
//!            | answer stop                      where it is over with the prompt
//! reasoning  = anything up to and with the first "</think>", starting with "<think>" where it is optional
//! answer     = gap item (gap item)…             `count` different items
//! gap        = at most two of " " and "\n"; between items that stand on lines of their own at least one "\n"
//! ```

use std::ops::Range;

use crate::texts::Texts;

const OPEN: &[u8] = b"<think>";
const CLOSE: &[u8] = b"</think>";

/// Most white space in one place: a free line between the reasoning and the list.
const LONGEST_GAP: u8 = 2;

/// Items that cannot be told apart in an answer, or not be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A list of nothing, or of more than there is.
    #[error(
        "an answer is to list {count} of {items} items: expected at least 1 and at most all of 65,535 or fewer"
    )]
    Count {
        /// Items to be listed.
        count: usize,
        /// Items that there are.
        items: usize,
    },
    /// An item whose text cannot stand in a list.
    #[error("item {text:?} {defect}")]
    Item {
        /// Its text, shortened.
        text: String,
        /// What is wrong with it.
        defect: &'static str,
    },
    /// One item's text is the beginning of another's, or the same.
    #[error("item {text:?} is the beginning of another item: expected texts that end differently")]
    Beginning {
        /// The shorter text, shortened.
        text: String,
    },
}

/// Whether reasoning comes before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reasoning {
    /// The answer follows the first `</think>`: reasoning is required, or the prompt has begun it.
    First,
    /// The answer may follow a think block, or be all there is.
    Optional,
    /// The prompt has closed the think block: the answer is all there is.
    Over,
}

/// What an answer may list.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The items' texts, ascending.
    items: Texts,
    count: usize,
    lines: bool,
    reasoning: Reasoning,
}

/// How far a completion has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    place: Place,
    /// The items listed so far, ascending. Their order makes no difference to what may follow.
    listed: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    /// In the reasoning, after so many bytes of its closing tag.
    Reasoning { closing: u8 },
    /// After so many bytes of the opening tag.
    Opening { opening: u8 },
    /// In white space: before the first item or between two.
    Gap(Gap),
    /// After `depth` bytes of one of the items `first..end`.
    Item { first: u16, end: u16, depth: u32 },
    /// All items are listed.
    End,
    /// The text is no answer any more.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Gap {
    /// Whether an item may follow: always, unless a line has to end first.
    open: bool,
    /// Whether reasoning may follow.
    reasoning: bool,
    length: u8,
}

impl Gap {
    const fn before_answer(reasoning: bool) -> Self {
        Self { open: true, reasoning, length: 0 }
    }

    /// The gap with one more space or line feed; `None` if it would be too long.
    fn after(self, byte: u8) -> Option<Self> {
        let gap = Self { open: self.open || byte == b'\n', length: self.length + 1, ..self };
        (gap.length < LONGEST_GAP || (gap.length == LONGEST_GAP && gap.open)).then_some(gap)
    }
}

impl Answer {
    /// Answers that list `count` different ones of `items`, each on a line of its own if `lines` says so.
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
        let place = match self.reasoning {
            Reasoning::First => Place::Reasoning { closing: 0 },
            Reasoning::Optional => Place::Gap(Gap::before_answer(true)),
            Reasoning::Over => Place::Gap(Gap::before_answer(false)),
        };
        State { place, listed: Vec::new() }
    }

    /// The state after a text; it is lost where the text is no beginning of an answer.
    pub fn after(&self, state: &State, text: &[u8]) -> State {
        let mut state = state.clone();
        for byte in text {
            match self.step(&state, *byte) {
                Some(next) => state = next,
                None => return State { place: Place::Lost, ..state },
            }
        }
        state
    }

    /// The state after one more byte; `None` if the byte may not follow.
    pub(crate) fn step(&self, state: &State, byte: u8) -> Option<State> {
        let listed = || state.listed.clone();
        let place = match &state.place {
            Place::Reasoning { closing } => match matched(CLOSE, *closing, byte) {
                closing if usize::from(closing) == CLOSE.len() => Place::Gap(Gap::before_answer(false)),
                closing => Place::Reasoning { closing },
            },
            Place::Opening { opening } => {
                if OPEN[usize::from(*opening)] != byte {
                    return None;
                }
                match opening + 1 {
                    opening if usize::from(opening) == OPEN.len() => Place::Reasoning { closing: 0 },
                    opening => Place::Opening { opening },
                }
            }
            Place::Gap(gap) if byte == OPEN[0] => gap.reasoning.then_some(Place::Opening { opening: 1 })?,
            Place::Gap(gap) if matches!(byte, b' ' | b'\n') => Place::Gap(gap.after(byte)?),
            Place::Gap(gap) if gap.open => return self.item(listed(), 0..self.items.len(), 0, byte),
            Place::Item { first, end, depth } => {
                return self.item(listed(), usize::from(*first)..usize::from(*end), *depth, byte);
            }
            Place::Gap(_) | Place::End | Place::Lost => return None,
        };
        Some(State { place, listed: listed() })
    }

    /// One more byte of an item of `node`.
    fn item(&self, mut listed: Vec<u16>, node: Range<usize>, depth: u32, byte: u8) -> Option<State> {
        let node = self.items.child(node, depth as usize, byte);
        let (first, end, depth) = (node.start as u16, node.end as u16, depth + 1);
        if (first..end).all(|item| listed.binary_search(&item).is_ok()) {
            return None;
        }
        if self.items.ending(node, depth as usize).is_empty() {
            return Some(State { place: Place::Item { first, end, depth }, listed });
        }
        // No other item goes on from here, so that this one is complete.
        let place = listed.partition_point(|item| *item < first);
        listed.insert(place, first);
        let place = if listed.len() == self.count {
            Place::End
        } else {
            Place::Gap(Gap { open: !self.lines, reasoning: false, length: 0 })
        };
        Some(State { place, listed })
    }

    /// The texts of the items, in the order of their numbers here.
    pub(crate) fn items(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.items.len()).map(|item| self.items.get(item))
    }
}

impl State {
    /// Whether any token may follow: in the reasoning, and where all is lost.
    pub(crate) const fn is_free(&self) -> bool {
        matches!(self.place, Place::Reasoning { .. } | Place::Lost)
    }

    /// Whether an item that is begun can be finished. `live`: for each item and number of its bytes, whether the rest can
    /// be spelled.
    pub(crate) fn is_live(&self, live: &[Vec<bool>]) -> bool {
        match self.place {
            Place::Item { first, end, depth } => (first..end).any(|item| {
                live[usize::from(item)][depth as usize] && self.listed.binary_search(&item).is_err()
            }),
            Place::Reasoning { .. } | Place::Opening { .. } | Place::Gap(_) | Place::End => true,
            Place::Lost => false,
        }
    }

    pub(crate) const fn is_reasoning(&self) -> bool {
        matches!(self.place, Place::Reasoning { .. })
    }

    /// Whether the answer is complete.
    pub const fn is_end(&self) -> bool {
        matches!(self.place, Place::End)
    }

    /// Whether the list comes next or has begun, so that only items may follow.
    pub const fn is_in_list(&self) -> bool {
        matches!(self.place, Place::Gap(Gap { reasoning: false, .. }) | Place::Item { .. })
    }
}

/// How many bytes of `tag` the text ends with after one more byte. Its first byte occurs nowhere else in a tag.
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
