//! Encodings of files.

use std::fmt;
use std::io::{self, BufRead as _, Read};
use std::str::FromStr;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::input::{Input, reading};
use super::rows::Error;

/// Number of bytes in which UTF-16 without a byte order mark is detected.
const HEAD_BYTES: usize = 1 << 16;

/// A text encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoding {
    table: &'static encoding_rs::Encoding,
    /// Whether windows-1252 is used only with the characters of latin-1.
    latin1: bool,
}

/// The requested encoding of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Detect the encoding.
    Auto,
    /// Use this encoding.
    Named(Encoding),
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.latin1 { "latin-1" } else { self.table.name() })
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        encoding_rs::Encoding::for_label(text.as_bytes())
            .filter(|table| table.output_encoding() == *table || is_utf16(table))
            .map(Self::from)
            .ok_or_else(|| {
                "expected an encoding such as utf-8, utf-16le, latin1, windows-1252, shift_jis or gb18030"
                    .to_owned()
            })
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Named) }
    }
}

impl From<&'static encoding_rs::Encoding> for Encoding {
    fn from(table: &'static encoding_rs::Encoding) -> Self {
        Self { table, latin1: false }
    }
}

impl Choice {
    /// Returns the encoding of `input`, which is read completely for detection.
    pub(crate) fn of(self, input: &Input) -> Result<Encoding, Error> {
        match self {
            Self::Auto => detect(input.open()?).map_err(reading(&input.path)),
            Self::Named(encoding) if is_utf16(encoding.table) => {
                // The byte order mark decides between the two UTF-16 encodings.
                let mut head = [0; 2];
                fill(&mut input.open()?, &mut head).map_err(reading(&input.path))?;
                Ok(encoding_rs::Encoding::for_bom(&head).map_or(encoding, |(table, _)| table.into()))
            }
            Self::Named(encoding) => Ok(encoding),
        }
    }
}

impl Encoding {
    /// Whether text is in UTF-8 after [`Self::as_utf8`].
    fn is_unicode(self) -> bool {
        self.table == UTF_8 || is_utf16(self.table)
    }

    /// Returns `content` in bytes that can be split into lines: UTF-16 is converted to UTF-8.
    pub(crate) fn as_utf8(self, content: Box<dyn io::BufRead>) -> Box<dyn io::BufRead> {
        if is_utf16(self.table) {
            let big = self.table == UTF_16BE;
            Box::new(io::BufReader::new(Utf16 { content, big, first: true, pending: Vec::new(), high: None }))
        } else {
            content
        }
    }

    /// Decodes a line of [`Self::as_utf8`]; `buffer` holds the text if it has to be converted.
    pub(crate) fn decode<'a>(self, bytes: &'a [u8], buffer: &'a mut String) -> Option<&'a str> {
        match std::str::from_utf8(bytes) {
            Ok(text) if self.is_unicode() => Some(text),
            // A byte order mark has no meaning in the middle of a file.
            _ if self.is_unicode() => None,
            _ => {
                *buffer = self.table.decode_without_bom_handling_and_without_replacement(bytes)?.into_owned();
                Some(buffer)
            }
        }
    }

    /// Returns the most likely encoding of a line that is not UTF-8.
    pub(crate) fn guess(bytes: &[u8]) -> Self {
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        detector.feed(bytes, true);
        Self::from(detector.guess(None, Utf8Detection::Deny))
    }
}

fn is_utf16(table: &'static encoding_rs::Encoding) -> bool {
    table == UTF_16LE || table == UTF_16BE
}

/// Detects the encoding. A non-ASCII character of a legacy encoding followed by ASCII is never valid UTF-8, so that
/// most such characters are invalid in UTF-8; in a UTF-8 file only damaged ones are. A detector distinguishes legacy
/// encodings.
fn detect(mut content: impl io::BufRead) -> io::Result<Encoding> {
    let mut head = Vec::new();
    content.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    if let Some((table, _)) = encoding_rs::Encoding::for_bom(&head) {
        return Ok(table.into());
    }
    if let Some(table) = utf16_without_mark(&head) {
        return Ok(table.into());
    }
    let mut content = io::BufReader::with_capacity(1 << 18, head.chain(content));
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    let (mut letters, mut impossible, mut beyond_latin1) = (0, 0, false);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A part of a very long line is sufficient: at most one character is cut.
        if io::Read::take(&mut content, 1 << 20).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.is_ascii() {
            continue;
        }
        detector.feed(&line, false);
        beyond_latin1 |= line.iter().any(|byte| (0x80..0xA0).contains(byte));
        for chunk in line.utf8_chunks() {
            letters += chunk.valid().chars().filter(|letter| !letter.is_ascii()).count();
            impossible += usize::from(!chunk.invalid().is_empty());
        }
    }
    if impossible <= letters {
        return Ok(UTF_8.into());
    }
    detector.feed(&[], true);
    let table = detector.guess(None, Utf8Detection::Deny);
    Ok(Encoding { table, latin1: table == WINDOWS_1252 && !beyond_latin1 })
}

/// Detects UTF-16 without a byte order mark. Tables contain ASCII (digits, delimiters, line ends), half of whose bytes
/// are zero in UTF-16: all on one side, including one in a line end.
fn utf16_without_mark(head: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    let zeros = |side: usize| head.iter().skip(side).step_by(2).filter(|&&byte| byte == 0).count();
    let (first, second) = (zeros(0), zeros(1));
    let (units, table) = (head.len() / 2, if second > first { UTF_16LE } else { UTF_16BE });
    let line_end = if table == UTF_16LE { [b'\n', 0] } else { [0, b'\n'] };
    let likely = first.max(second) * 10 > units && first.min(second) * 10 < first.max(second);
    (likely && head.chunks(2).any(|unit| unit == line_end)).then_some(table)
}

/// Converts UTF-16 to UTF-8. A lone surrogate becomes an invalid byte, so that its line is rejected.
struct Utf16<R> {
    content: R,
    big: bool,
    first: bool,
    pending: Vec<u8>,
    high: Option<u16>,
}

const NOT_UTF8: u8 = 0xFF;

impl<R: io::BufRead> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.pending.is_empty() {
            let mut units = [0; 4096];
            let length = fill(&mut self.content, &mut units)?;
            for pair in units[..length].chunks(2) {
                self.take(pair);
            }
            if length == 0 {
                if self.high.take().is_none() {
                    return Ok(0);
                }
                self.pending.push(NOT_UTF8);
            }
        }
        let length = self.pending.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.pending[..length]);
        self.pending.drain(..length);
        Ok(length)
    }
}

impl<R> Utf16<R> {
    fn take(&mut self, pair: &[u8]) {
        let &[one, two] = pair else {
            // An incomplete unit at the end.
            self.pending.push(NOT_UTF8);
            return;
        };
        let unit = if self.big { u16::from_be_bytes([one, two]) } else { u16::from_le_bytes([one, two]) };
        let high = self.high.take();
        // The byte order mark is not part of the text.
        if std::mem::take(&mut self.first) && unit == 0xFEFF {
            return;
        }
        if (0xD800..0xDC00).contains(&unit) {
            self.pending.extend(high.map(|_| NOT_UTF8));
            self.high = Some(unit);
            return;
        }
        for letter in char::decode_utf16(high.into_iter().chain([unit])) {
            match letter {
                Ok(letter) => self.pending.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                Err(_) => self.pending.push(NOT_UTF8),
            }
        }
    }
}

/// Reads until `buffer` is full or the content ends.
fn fill(content: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match content.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, big: bool) -> Vec<u8> {
        text.encode_utf16()
            .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect()
    }

    #[test]
    fn encodings_are_detected_despite_a_damaged_line() {
        for (file, expected) in [
            (b"plain\nascii\n".as_slice(), "UTF-8"),
            (b"", "UTF-8"),
            ("Été\n映画\n".as_bytes(), "UTF-8"),
            (b"\xEF\xBB\xBFplain", "UTF-8"),
            (b"Mis\xE9rables, Les\nplain\n", "latin-1"),
            (b"\xC3\x89t\xC3\xA9\n\xC3\xA9\n damaged \xE9 \n", "UTF-8"),
            (b"V\xE9ronique\nd\xE9j\xE0\nand one \xC3\xA9\n", "latin-1"),
            (b"It\x92s \x93quoted\x94 \x97 caf\xE9\n", "windows-1252"),
            (&utf16("item,title\n1,映画\n", false), "UTF-16LE"),
            (&utf16("item,title\n1,映画\n", true), "UTF-16BE"),
            (&utf16("\u{FEFF}映画\n", true), "UTF-16BE"),
            (b"one,\0two\nthree\n", "UTF-8"),
        ] {
            assert_eq!(detect(file).unwrap().to_string(), expected, "{file:?}");
        }
    }

    #[test]
    fn legacy_encodings_are_detected() {
        let russian = "Привет, мир. Война и мир\nПреступление и наказание\n";
        let japanese = "千と千尋の神隠し\nとなりのトトロ\n";
        for (text, table) in [(russian, encoding_rs::WINDOWS_1251), (japanese, encoding_rs::SHIFT_JIS)] {
            let bytes = table.encode(text).0;
            let encoding = detect(&*bytes).unwrap();
            assert_eq!(encoding.to_string(), table.name());
            let mut buffer = String::new();
            let line = bytes.split(|&byte| byte == b'\n').next().unwrap();
            assert_eq!(encoding.decode(line, &mut buffer), text.lines().next());
        }
    }

    #[test]
    fn lines_are_decoded() {
        let mut buffer = String::new();
        let latin1: Encoding = "latin1".parse().unwrap();
        assert_eq!(latin1.decode(b"Mis\xE9rables \x96 \x93a\x94", &mut buffer), Some("Misérables – “a”"));
        assert_eq!(latin1.decode("é".as_bytes(), &mut buffer), Some("Ã©"));
        assert_eq!(Encoding::from(UTF_8).decode("é".as_bytes(), &mut buffer), Some("é"));
        assert_eq!(Encoding::from(UTF_8).decode(b"\xE9", &mut buffer), None);
        assert!("utf-7".parse::<Encoding>().is_err());
        assert_eq!("auto".parse(), Ok(Choice::Auto));
    }

    #[test]
    fn utf16_becomes_utf8_and_lone_surrogates_become_invalid() {
        for big in [false, true] {
            let read = |bytes: Vec<u8>| {
                let table = if big { UTF_16BE } else { UTF_16LE };
                let mut text = Vec::new();
                let content = Box::new(io::Cursor::new(bytes));
                Encoding::from(table).as_utf8(content).read_to_end(&mut text).unwrap();
                text
            };
            let long = "\u{FEFF}é映😀\r\n".repeat(2_000);
            let expected = long.strip_prefix('\u{FEFF}').unwrap().as_bytes();
            assert_eq!(read(utf16(&long, big)), expected);
            let half = [&utf16("a", big)[..], &utf16("😀", big)[..2], &utf16("b", big), b"x"].concat();
            assert_eq!(read(half), b"a\xFFb\xFF");
        }
    }
}
