//! Reads the lines of a large text file, with progress.

use std::io::{self, BufRead, Read};

use podium_recsys::dataset::delimited::{self, Line};
use podium_service::progress::Progress;

use super::encoding::Encoding;
use super::input::Input;
use super::rows::{Error, Problem, excerpt};

/// Maximum length of a line; longer lines are rejected to bound memory.
const LONGEST_LINE_BYTES: u64 = 16 << 20;
/// Number of bytes per unit of progress.
const MEGABYTE: u64 = 1 << 20;

/// A file being read line by line.
pub(crate) struct Lines {
    input: Input,
    encoding: Encoding,
    /// Encoding of lines that are invalid in the file's encoding.
    fallback: Option<Encoding>,
    reader: Box<dyn BufRead>,
    bytes: Vec<u8>,
    buffer: String,
    number: u64,
    meter: Meter,
    /// Number of lines in the fallback encoding.
    pub(crate) fallen_back: u64,
}

impl Lines {
    /// Opens `input`.
    pub(crate) fn open(input: &Input, encoding: Encoding, fallback: Option<Encoding>) -> Result<Self, Error> {
        Ok(Self {
            input: input.clone(),
            encoding,
            fallback,
            reader: encoding.as_utf8(input.open()?),
            bytes: Vec::new(),
            buffer: String::new(),
            number: 0,
            meter: Meter::new(input.stored_bytes()?),
            fallen_back: 0,
        })
    }

    /// Reads the next nonblank line into `line`; returns `false` at the end.
    pub(crate) fn next(&mut self, line: &mut Line<Problem>) -> Result<bool, Error> {
        while delimited::Lines::read(self, line)? {
            if line.problem.is_some() || !line.text.trim().is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Decodes the current line.
    fn decode(&mut self, line: &mut Line<Problem>) {
        let bytes = if self.number == 1 { without_mark(&self.bytes) } else { &self.bytes };
        let (encoding, buffer) = (self.encoding, &mut self.buffer);
        if let Some(text) = encoding.decode(bytes, buffer) {
            line.text.push_str(text);
        } else if let Some(text) = self.fallback.and_then(|fallback| fallback.decode(bytes, buffer)) {
            line.text.push_str(text);
            self.fallen_back += 1;
        } else {
            let guess = Encoding::guess(bytes);
            let reads_as = guess.decode(bytes, buffer).map(|text| (guess, excerpt(text.trim_end())));
            line.problem = Some(Problem::Encoding { encoding, reads_as });
            line.text.push_str(&String::from_utf8_lossy(bytes));
        }
        if line.problem.is_none() && line.text.contains('\0') {
            line.problem = Some(Problem::Nul);
        }
        line.text.truncate(line.text.trim_end_matches(['\r', '\n']).len());
    }
}

impl delimited::Lines for Lines {
    type Problem = Problem;
    type Error = Error;

    fn read(&mut self, line: &mut Line<Problem>) -> Result<bool, Error> {
        self.bytes.clear();
        let limited = self.reader.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut self.bytes);
        let read = limited.map_err(cut_after(&self.input, self.number))? as u64;
        if read == 0 {
            self.meter.finish(self.number);
            return Ok(false);
        }
        self.number += 1;
        self.meter.advance(read, self.number);
        line.number = self.number;
        line.text.clear();
        line.problem = None;
        if read == LONGEST_LINE_BYTES && self.bytes.last() != Some(&b'\n') {
            self.reader.skip_until(b'\n').map_err(cut_after(&self.input, self.number))?;
            line.problem = Some(Problem::TooLong(LONGEST_LINE_BYTES));
        } else {
            self.decode(line);
        }
        Ok(true)
    }
}

/// Returns the first nonblank line of `input`, as far as it is readable, and its number, to detect the layout.
pub(crate) fn first_line(input: &Input, encoding: Encoding) -> Result<(u64, String), Error> {
    let mut lines = Lines::open(input, encoding, None)?;
    let mut line = Line { number: 1, text: String::new(), problem: None };
    lines.next(&mut line)?;
    Ok((line.number, line.text))
}

/// Returns a function that adds the file, and the number of lines read before, to a read error.
fn cut_after(input: &Input, line: u64) -> impl Fn(io::Error) -> Error {
    move |source| Error::Cut { path: input.path.clone(), line, source }
}

/// Returns `bytes` without a byte order mark.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// Progress within a file.
pub(crate) struct Meter {
    progress: Progress,
    megabytes: u64,
    done: u64,
    shown: u64,
}

impl Meter {
    /// Starts the progress of `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        let megabytes = bytes.div_ceil(MEGABYTE);
        Self { progress: Progress::new("reading, MB", megabytes), megabytes, done: 0, shown: 0 }
    }

    /// Advances by `bytes`, with `rows` in total.
    pub(crate) fn advance(&mut self, bytes: u64, rows: u64) {
        self.done += bytes;
        let megabytes = self.done / MEGABYTE;
        if megabytes > self.shown && megabytes < self.megabytes {
            self.shown = megabytes;
            self.progress.show(megabytes, || format!("{rows} rows"));
        }
    }

    /// Shows the end of the file.
    pub(crate) fn finish(&mut self, rows: u64) {
        self.progress.show(self.megabytes, || format!("{rows} rows"));
        self.progress.finish();
    }
}
