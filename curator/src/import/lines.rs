//! The lines of a long text file, one at a time, with progress.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use podium_recsys::dataset::Place;
use podium_runtime::progress::Progress;

use super::encoding::Encoding;
use super::rows::{Error, Problem};

/// A longer line is no row of a data set; reading on would only fill the memory.
const LONGEST_LINE_BYTES: u64 = 16 << 20;
/// Progress is counted in units of so many bytes.
const MEGABYTE: u64 = 1 << 20;

/// A file being read line by line.
pub(crate) struct Lines {
    file: PathBuf,
    encoding: Encoding,
    reader: BufReader<File>,
    bytes: Vec<u8>,
    text: String,
    number: u64,
    meter: Meter,
}

/// A line without its end, or why there is none at this place.
pub(crate) struct Line<'a> {
    pub(crate) place: Place,
    pub(crate) text: Result<&'a str, Problem>,
}

impl Lines {
    /// Begins to read `file`.
    pub(crate) fn open(file: &Path, encoding: Encoding) -> Result<Self, Error> {
        let handle = open(file)?;
        let meter = Meter::new(handle.metadata().map_err(reading(file))?.len());
        let reader = BufReader::with_capacity(1 << 18, handle);
        Ok(Self {
            file: file.to_owned(),
            encoding,
            reader,
            bytes: Vec::new(),
            text: String::new(),
            number: 0,
            meter,
        })
    }

    /// The next line that is not blank.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, Error> {
        let length = loop {
            self.bytes.clear();
            let limited = self.reader.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut self.bytes);
            let read = limited.map_err(reading(&self.file))? as u64;
            if read == 0 {
                self.meter.finish(self.number);
                return Ok(None);
            }
            self.number += 1;
            self.meter.advance(read, self.number);
            if read == LONGEST_LINE_BYTES && self.bytes.last() != Some(&b'\n') {
                let before = self.bytes.len();
                skip_line(&mut self.reader).map_err(reading(&self.file))?;
                break before;
            }
            if !self.bytes.trim_ascii().is_empty() {
                break 0;
            }
        };
        let place = Place::Line(self.number);
        if length > 0 {
            return Ok(Some(Line { place, text: Err(Problem::TooLong(LONGEST_LINE_BYTES)) }));
        }
        let bytes = if self.number == 1 { without_mark(&self.bytes) } else { &self.bytes };
        let text = self.encoding.decode(bytes, &mut self.text).ok_or(Problem::Encoding(self.encoding));
        Ok(Some(Line { place, text: text.map(|text| text.trim_end_matches(['\r', '\n'])) }))
    }
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    reader.skip_until(b'\n').map(|_| ())
}

/// The first line of `file` that is not blank, decoded as far as possible: for telling layouts apart.
pub(crate) fn first_line(file: &Path) -> Result<String, Error> {
    let mut reader = BufReader::new(open(file)?);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader.by_ref().take(LONGEST_LINE_BYTES).read_until(b'\n', &mut bytes);
        let end = read.map_err(reading(file))? == 0;
        let line = without_mark(&bytes).trim_ascii();
        if end || !line.is_empty() {
            return Ok(String::from_utf8_lossy(line).into_owned());
        }
    }
}

/// Opens `file`. Telling layouts and encodings apart reads it more than once, so that what can be read only once is refused.
pub(crate) fn open(file: &Path) -> Result<File, Error> {
    // Asked before it is opened: opening a pipe waits for whoever writes.
    if !fs::metadata(file).map_err(reading(file))?.is_file() {
        return Err(Error::NotRegular(file.to_owned()));
    }
    File::open(file).map_err(reading(file))
}

/// `bytes` without the byte order mark that some editors put first.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// An error of reading `file`.
pub(crate) fn reading(file: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { action: "read", path: file.to_owned(), source }
}

/// How far into a file we are.
pub(crate) struct Meter {
    progress: Progress,
    megabytes: u64,
    done: u64,
    shown: u64,
}

impl Meter {
    /// Nothing of `bytes` is read yet.
    pub(crate) fn new(bytes: u64) -> Self {
        let megabytes = bytes.div_ceil(MEGABYTE);
        Self { progress: Progress::new("reading, MB", megabytes), megabytes, done: 0, shown: 0 }
    }

    /// `bytes` more are read, which makes `rows` in all.
    pub(crate) fn advance(&mut self, bytes: u64, rows: u64) {
        self.done += bytes;
        let megabytes = self.done / MEGABYTE;
        if megabytes > self.shown && megabytes < self.megabytes {
            self.shown = megabytes;
            self.progress.show(megabytes, || format!("{rows} rows"));
        }
    }

    /// All is read.
    pub(crate) fn finish(&mut self, rows: u64) {
        self.progress.show(self.megabytes, || format!("{rows} rows"));
        self.progress.finish();
    }
}
