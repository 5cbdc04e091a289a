//! Encodings of files.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE};

/// A text encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoding {
    pub(super) table: &'static encoding_rs::Encoding,
    /// Whether windows-1252 is used without the letters that latin-1 does not have.
    pub(super) latin1: bool,
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

impl From<&'static encoding_rs::Encoding> for Encoding {
    fn from(table: &'static encoding_rs::Encoding) -> Self {
        Self { table, latin1: false }
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

pub(super) fn is_utf16(table: &'static encoding_rs::Encoding) -> bool {
    table == UTF_16LE || table == UTF_16BE
}

/// Converts UTF-16 to UTF-8. An unpaired surrogate becomes a byte that is not UTF-8, so that its line is refused.
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
pub(super) fn fill(content: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
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
pub(super) mod tests {
    use super::*;

    pub(crate) fn utf16(text: &str, big: bool) -> Vec<u8> {
        text.encode_utf16()
            .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect()
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
