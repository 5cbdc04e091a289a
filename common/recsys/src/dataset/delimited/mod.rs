//! Delimited text tables: one record per line, with fields that may be quoted as in RFC 4180.
//!
//! A field is quoted if it begins with a quote and ends with one before a delimiter or a line end, and all quotes in
//! between are doubled; it may then contain delimiters and line ends. Every other quote is an ordinary character. A
//! field whose quote is not closed on its line is interpreted in one of three ways:
//!
//! - It continues on the following lines if those close it and none of them is a record by itself.
//! - If nothing closes it, the quote is stray: an ordinary character in tab-separated tables, which are rarely quoted,
//!   and a bad record in others. The following lines remain separate records.
//! - If it is closed and lines in between are records, both interpretations are possible. In tab-separated tables the
//!   quotes are ordinary characters; elsewhere the record is [`Bad::Ambiguous`], since one interpretation loses records
//!   and the other invents them.
//!
//! Line numbers include blank lines and lines inside quoted fields, as in an editor.

mod fields;

use std::collections::VecDeque;

pub use fields::Fields;

use fields::{Closing, Cut, closing};

/// Maximum length of a field; the search for a closing quote stops here.
const LONGEST_FIELD_BYTES: usize = 1 << 20;

/// A line without its line end.
#[derive(Debug, Clone, Default)]
pub struct Line<P> {
    /// Line number, from 1.
    pub number: u64,
    /// Its text, up to the first unreadable byte.
    pub text: String,
    /// The reason if the line is unusable.
    pub problem: Option<P>,
}

/// A source of lines.
pub trait Lines {
    /// Reason why a line is unusable.
    type Problem;
    /// Error of the source.
    type Error;

    /// Reads the next line, including blank ones, into `line`; returns `false` at the end.
    fn read(&mut self, line: &mut Line<Self::Problem>) -> Result<bool, Self::Error>;
}

/// Reason why a record is unusable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bad<P> {
    /// One of its lines is unusable: line number and reason.
    Line(u64, P),
    /// A quoted field is not closed.
    OpenQuote,
    /// A quoted field that ends on this line contains lines that are records by themselves.
    Ambiguous(u64),
}

/// A record: its first line and its fields.
#[derive(Debug)]
pub struct Record<'a, P> {
    /// The number of its first line, from 1.
    pub line: u64,
    /// Its fields, or the reason why it is unusable.
    pub fields: Result<Fields<'a>, Bad<P>>,
}

/// Interpretation of the lines after an open quote.
enum Below {
    /// The field contains this many of them.
    Field(usize),
    /// The quote is not closed.
    Nothing,
    /// The quote is closed on this line, and lines before it are records by themselves.
    Records(u64),
}

/// Reads records.
#[derive(Debug)]
pub struct Records<L: Lines> {
    lines: L,
    delimiter: u8,
    current: Line<L::Problem>,
    /// Lines read ahead in search of a closing quote.
    ahead: VecDeque<Line<L::Problem>>,
    cut: Cut,
}

impl<L: Lines> Records<L> {
    /// Creates a reader of the records in `lines`.
    pub fn new(lines: L, delimiter: u8) -> Self {
        let current = Line { number: 0, text: String::new(), problem: None };
        Self { lines, delimiter, current, ahead: VecDeque::new(), cut: Cut::default() }
    }

    /// Returns the next record that is not blank. `reads_as_record` decides whether a line, the second argument, looks
    /// like a record of the same table as the first argument.
    pub fn next(
        &mut self,
        reads_as_record: impl Fn(Fields<'_>, Fields<'_>) -> bool,
    ) -> Result<Option<Record<'_, L::Problem>>, L::Error> {
        loop {
            if let Some(line) = self.ahead.pop_front() {
                self.current = line;
            } else {
                self.current.problem = None;
                if !self.lines.read(&mut self.current)? {
                    return Ok(None);
                }
            }
            if self.current.problem.is_some() || !self.current.text.trim().is_empty() {
                break;
            }
        }
        let line = self.current.number;
        let mut bad = None;
        if self.cut.cut(&self.current.text, self.delimiter) {
            match self.below(reads_as_record)? {
                Below::Field(count) => self.join(count),
                Below::Nothing if self.delimiter != b'\t' => bad = Some(Bad::OpenQuote),
                Below::Records(last) if self.delimiter != b'\t' => bad = Some(Bad::Ambiguous(last)),
                Below::Nothing | Below::Records(_) => {}
            }
        }
        let problem = self.current.problem.take().map(|problem| Bad::Line(self.current.number, problem));
        let fields = match problem.or(bad) {
            Some(bad) => Err(bad),
            None => Ok(self.cut.fields(&self.current.text)),
        };
        Ok(Some(Record { line, fields }))
    }

    /// Returns the source of the lines at its current position.
    pub fn into_lines(self) -> L {
        self.lines
    }

    /// Finds the end of the quoted field that is open at the end of the current line.
    fn below(&mut self, reads_as_record: impl Fn(Fields<'_>, Fields<'_>) -> bool) -> Result<Below, L::Error> {
        let mut text = self.current.text.clone();
        let (mut other, mut has_records) = (Cut::default(), false);
        for count in 0.. {
            if count == self.ahead.len() {
                let mut line = Line { number: 0, text: String::new(), problem: None };
                if !self.lines.read(&mut line)? {
                    return Ok(Below::Nothing);
                }
                self.ahead.push_back(line);
            }
            let line = &self.ahead[count];
            other.cut(&line.text, self.delimiter);
            has_records |= reads_as_record(self.cut.fields(&self.current.text), other.fields(&line.text));
            text.push('\n');
            text.push_str(&line.text);
            match closing(&line.text, 0, self.delimiter) {
                Closing::Malformed => return Ok(Below::Nothing),
                Closing::At(_) if !other.cut(&text, self.delimiter) => {
                    return Ok(if has_records {
                        Below::Records(line.number)
                    } else {
                        Below::Field(count + 1)
                    });
                }
                Closing::At(_) | Closing::Open if text.len() > LONGEST_FIELD_BYTES => {
                    return Ok(Below::Nothing);
                }
                Closing::At(_) | Closing::Open => {}
            }
        }
        Ok(Below::Nothing)
    }

    /// Appends the next `count` lines to the current record.
    fn join(&mut self, count: usize) {
        for line in self.ahead.drain(..count) {
            self.current.text.push('\n');
            self.current.text.push_str(&line.text);
            if self.current.problem.is_none() && line.problem.is_some() {
                self.current.problem = line.problem;
                self.current.number = line.number;
            }
        }
        self.cut.cut(&self.current.text, self.delimiter);
    }
}

/// Whether `id` looks like an id of the same table as `known`: both are numbers, or both are words of the same length,
/// with or without digits. Without a known id every id does.
pub fn alike(known: &str, id: &str) -> bool {
    if known.is_empty() {
        return !id.is_empty();
    }
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let digits = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit());
    match (number(known), number(id)) {
        (true, true) => true,
        (false, false) => {
            let words = [known, id].iter().all(|text| !text.contains(char::is_whitespace));
            words && known.len() == id.len() && digits(known) == digits(id)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
