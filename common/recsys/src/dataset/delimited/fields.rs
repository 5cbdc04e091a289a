//! Splits one record into fields.

use std::ops::Range;

/// The fields of a record.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    pub(super) text: &'a str,
    pub(super) ranges: &'a [Range<usize>],
}

impl<'a> Fields<'a> {
    /// Returns the number of fields.
    pub const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there are no fields.
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the field in `column`, trimmed; empty beyond the last column.
    pub fn get(&self, column: usize) -> &'a str {
        self.ranges.get(column).map_or("", |range| self.text[range.clone()].trim())
    }

    /// Returns all fields, trimmed.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let Self { text, ranges } = *self;
        ranges.iter().map(move |range| text[range.clone()].trim())
    }
}

/// Buffers for splitting records.
#[derive(Debug, Default)]
pub(super) struct Cut {
    ranges: Vec<Range<usize>>,
    /// The text without enclosing quotes, if it has quotes.
    unquoted: String,
    has_quotes: bool,
}

/// End of a quoted field.
pub(super) enum Closing {
    /// At the quote at this byte, followed by a delimiter or the end of the text.
    At(usize),
    /// Not in this text.
    Open,
    /// A quote that is neither doubled nor at the end of the field: the field is not quoted.
    Malformed,
}

/// Finds the end of a quoted field whose content begins at `from`.
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
    /// Splits `text`. Returns whether it ends inside a quoted field, whose opening quote is then an ordinary character.
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

    /// Returns the fields of `text`, which was split last.
    pub(super) fn fields<'a>(&'a self, text: &'a str) -> Fields<'a> {
        Fields { text: if self.has_quotes { &self.unquoted } else { text }, ranges: &self.ranges }
    }
}
