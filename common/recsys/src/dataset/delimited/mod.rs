//! Tables of text with a delimiter: a record on each line, with fields that may be quoted as in RFC 4180.
//!
//! A field is quoted if it begins with a quote and ends with one before a delimiter or a line end, with all quotes between
//! them doubled; then it may hold delimiters and line ends. Every other quote is a letter. A field whose quote is not
//! closed on its line is read in one of three ways:
//!
//! - It continues on the lines below where those close it and none of them reads as a record by itself.
//! - Where nothing closes it, the quote is stray: a letter in tables with tabs, in which few writers quote, and a bad
//!   record in others. The lines below stay records of their own.
//! - Where it is closed and lines in between read as records, both readings are possible. In tables with tabs the quotes
//!   are letters; elsewhere it is [`Bad::Ambiguous`], since one reading loses records and the other invents them.
//!
//! Line numbers are those of an editor: blank lines and lines inside quoted fields count.

mod fields;

use std::collections::VecDeque;

pub use fields::Fields;

use fields::{Closing, Cut, closing};

/// A longer field is none: the search for a closing quote ends here.
const LONGEST_FIELD_BYTES: usize = 1 << 20;

/// A line without its end.
#[derive(Debug, Clone, Default)]
pub struct Line<P> {
    /// Its number, from 1.
    pub number: u64,
    /// Its text, as far as it can be read.
    pub text: String,
    /// Why it cannot be used, if it cannot.
    pub problem: Option<P>,
}

/// A source of lines.
pub trait Lines {
    /// Why a line cannot be used.
    type Problem;
    /// Why reading fails.
    type Error;

    /// Reads the next line, blank or not, into `line`; returns whether there was one.
    fn read(&mut self, line: &mut Line<Self::Problem>) -> Result<bool, Self::Error>;
}

/// Why a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bad<P> {
    /// One of its lines cannot be used: the line's number, and why.
    Line(u64, P),
    /// A quoted field is never closed.
    OpenQuote,
    /// A quoted field that ends on this line holds lines that read as records.
    Ambiguous(u64),
}

/// A record: the line that it begins on, and its fields.
#[derive(Debug)]
pub struct Record<'a, P> {
    /// The number of its first line, from 1.
    pub line: u64,
    /// Its fields, or why there are none.
    pub fields: Result<Fields<'a>, Bad<P>>,
}

/// What the lines below an open quote show.
enum Below {
    /// So many of them belong to the field.
    Field(usize),
    /// The quote is never closed.
    Nothing,
    /// The quote is closed on the line of this number, and lines up to there are records by themselves.
    Records(u64),
}

/// Reads records.
#[derive(Debug)]
pub struct Records<L: Lines> {
    lines: L,
    delimiter: u8,
    current: Line<L::Problem>,
    /// Lines that were read in search of a closing quote.
    ahead: VecDeque<Line<L::Problem>>,
    cut: Cut,
}

impl<L: Lines> Records<L> {
    /// The records of `lines`.
    pub fn new(lines: L, delimiter: u8) -> Self {
        let current = Line { number: 0, text: String::new(), problem: None };
        Self { lines, delimiter, current, ahead: VecDeque::new(), cut: Cut::default() }
    }

    /// The next record that is not blank. `reads_as_record` decides whether a line, the second argument, looks like a
    /// record of the same table as the first argument.
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

    /// The source of the lines, as far as it was read.
    pub fn into_lines(self) -> L {
        self.lines
    }

    /// Looks for the end of the quoted field that the current line leaves open.
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

    /// Takes the next `count` lines into the current record.
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

/// Whether `id` looks like an id of the same table as `known`: both are numbers, or both are words of one length, with or
/// without digits. Where none is known, every id does.
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
