//! The encoding of a file: named by the user, or detected.

use std::io::{self, BufRead as _, Read as _};
use std::str::FromStr;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::encoding::{Encoding, fill, is_utf16};
use super::input::{Input, reading};
use super::rows::Error;

/// Number of bytes that are examined to detect UTF-16 without a byte order mark.
const HEAD_BYTES: usize = 1 << 16;

/// The user's choice of a file's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Detected from the file.
    Auto,
    /// This encoding.
    Named(Encoding),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Named) }
    }
}

impl Choice {
    /// Returns the encoding of `input`, which is read completely if the encoding must be detected.
    pub(crate) fn of(self, input: &Input) -> Result<Encoding, Error> {
        match self {
            Self::Auto => {
                let mut lines = 0;
                detect(input.open()?, &mut lines).map_err(|source| Error::Cut {
                    path: input.path.clone(),
                    line: lines,
                    source,
                })
            }
            Self::Named(encoding) if is_utf16(encoding.table) => {
                // The byte order mark determines which of the two UTF-16 encodings it is.
                let mut head = [0; 2];
                fill(&mut input.open()?, &mut head).map_err(reading(&input.path))?;
                Ok(encoding_rs::Encoding::for_bom(&head).map_or(encoding, |(table, _)| table.into()))
            }
            Self::Named(encoding) => Ok(encoding),
        }
    }
}

/// Detects the encoding of a file. In older encodings a letter followed by ASCII is invalid UTF-8,
/// so nearly all letters of such a file are invalid UTF-8; in a UTF-8 file only damaged letters
/// are. A detector distinguishes the older encodings. Counts the lines that are read.
fn detect(mut content: impl io::BufRead, lines: &mut u64) -> io::Result<Encoding> {
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
        // A piece of a very long line serves as a line: at most one letter is cut.
        if io::Read::take(&mut content, 1 << 20).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        *lines += u64::from(line.ends_with(b"\n"));
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

/// Detects UTF-16 without a byte order mark. Tables contain ASCII (digits, delimiters, line ends),
/// half of whose bytes in UTF-16 are zero: all at odd or all at even positions, and one of them in
/// a line end.
fn utf16_without_mark(head: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    let zeros = |side: usize| head.iter().skip(side).step_by(2).filter(|&&byte| byte == 0).count();
    let (first, second) = (zeros(0), zeros(1));
    let (units, table) = (head.len() / 2, if second > first { UTF_16LE } else { UTF_16BE });
    let line_end = if table == UTF_16LE { [b'\n', 0] } else { [0, b'\n'] };
    let likely = first.max(second) * 10 > units && first.min(second) * 10 < first.max(second);
    (likely && head.chunks(2).any(|unit| unit == line_end)).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::super::encoding::tests::utf16;
    use super::*;

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
            assert_eq!(detect(file, &mut 0).unwrap().to_string(), expected, "{file:?}");
        }
    }

    #[test]
    fn legacy_encodings_are_detected() {
        let russian = "Привет, мир. Война и мир\nПреступление и наказание\n";
        let japanese = "千と千尋の神隠し\nとなりのトトロ\n";
        for (text, table) in [(russian, encoding_rs::WINDOWS_1251), (japanese, encoding_rs::SHIFT_JIS)] {
            let bytes = table.encode(text).0;
            let encoding = detect(&*bytes, &mut 0).unwrap();
            assert_eq!(encoding.to_string(), table.name());
            let mut buffer = String::new();
            let line = bytes.split(|&byte| byte == b'\n').next().unwrap();
            assert_eq!(encoding.decode(line, &mut buffer), text.lines().next());
        }
    }

    #[test]
    fn the_encoding_may_be_left_open() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert!("utf-7".parse::<Choice>().is_err());
    }
}
