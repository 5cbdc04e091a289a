//! One record cut into fields.

use std::ops::Range;

/// The fields of a record.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    pub(super) text: &'a str,
    pub(super) ranges: &'a [Range<usize>],
}

impl<'a> Fields<'a> {
    /// How many fields there are.
    pub const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is no field.
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The field in `column`, without white space around it; empty beyond the last column.
    pub fn get(&self, column: usize) -> &'a str {
        self.ranges.get(column).map_or("", |range| self.text[range.clone()].trim())
    }

    /// All fields, without white space around them.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let Self { text, ranges } = *self;
        ranges.iter().map(move |range| text[range.clone()].trim())
    }
}

/// A record's fields as they are cut out of its text.
#[derive(Debug, Default)]
pub(super) struct Cut {
    ranges: Vec<Range<usize>>,
    /// The text without the quotes that are no part of it, where there are quotes at all.
    unquoted: String,
    has_quotes: bool,
}

/// Where a quoted field ends.
pub(super) enum Closing {
    /// At the quote at this byte, which a delimiter or the end of the text follows.
    At(usize),
    /// Nowhere in this text.
    Open,
    /// A quote that is neither doubled nor at the end of the field: the field is not quoted.
    Malformed,
}

/// Looks for the end of a quoted field whose content begins at `from`.
pub(super) fn closing(text: &str, from: usize, delimiter: u8) -> Closing {
    let bytes = text.as_bytes();
    let mut at = from;
    while let Some(length) = bytes[at..].iter().position(|&byte| byte == b'"') {
        at += length;
        match bytes.get(at + 1) {
            Some(b'"') => at += 2,
            Some(&next) if next != delimiter => return Closing::Malformed,
            _ => return Closing::At(at),
        }
    }
    Closing::Open
}

impl Cut {
    /// Cuts `text`; returns whether it ends inside a quoted field, whose opening quote is then taken for a letter.
    pub(super) fn cut(&mut self, text: &str, delimiter: u8) -> bool {
        self.ranges.clear();
        self.has_quotes = text.as_bytes().contains(&b'"');
        if !self.has_quotes {
            let mut start = 0;
            for (end, _) in text.bytes().enumerate().filter(|&(_, byte)| byte == delimiter) {
                self.ranges.push(start..end);
                start = end + 1;
            }
            self.ranges.push(start..text.len());
            return false;
        }
        self.unquoted.clear();
        let (mut start, mut open) = (0, false);
        loop {
            let quoted = text[start..].starts_with('"').then(|| closing(text, start + 1, delimiter));
            open |= matches!(quoted, Some(Closing::Open));
            let begin = self.unquoted.len();
            let end = if let Some(Closing::At(end)) = quoted {
                self.unquoted.push_str(&text[start + 1..end].replace("\"\"", "\""));
                end + 1
            } else {
                let rest = &text.as_bytes()[start..];
                let end = rest.iter().position(|&byte| byte == delimiter).map_or(text.len(), |at| start + at);
                self.unquoted.push_str(&text[start..end]);
                end
            };
            self.ranges.push(begin..self.unquoted.len());
            if end >= text.len() {
                return open;
            }
            start = end + 1;
        }
    }

    /// The fields of `text`, which was cut last.
    pub(super) fn fields<'a>(&'a self, text: &'a str) -> Fields<'a> {
        Fields { text: if self.has_quotes { &self.unquoted } else { text }, ranges: &self.ranges }
    }
}
