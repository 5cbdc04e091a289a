//! UTF-8 and latin-1 told apart.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use clap::ValueEnum;

use super::lines::{open, reading};
use super::rows::Error;

/// How the bytes of a file stand for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// UTF-8. ASCII is UTF-8 too.
    Utf8,
    /// ISO 8859-1: each byte is the character of that number.
    Latin1,
}

/// The encoding that the user says a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// Told from the file: latin-1 where more lines cannot be UTF-8 than hold letters in UTF-8.
    Auto,
    /// UTF-8.
    Utf8,
    /// ISO 8859-1.
    Latin1,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utf8 => "UTF-8",
            Self::Latin1 => "latin-1",
        })
    }
}

impl Choice {
    /// The encoding of `file`, which is read through where the user leaves it open.
    pub(crate) fn of(self, file: &Path) -> Result<Encoding, Error> {
        let handle = open(file)?;
        match self {
            Self::Auto => detect(BufReader::with_capacity(1 << 20, handle)).map_err(reading(file)),
            Self::Utf8 => Ok(Encoding::Utf8),
            Self::Latin1 => Ok(Encoding::Latin1),
        }
    }
}

impl Encoding {
    /// The text of `bytes`; `buffer` holds it where it has to be made.
    pub(crate) fn decode<'a>(self, bytes: &'a [u8], buffer: &'a mut String) -> Option<&'a str> {
        match std::str::from_utf8(bytes) {
            // Plain ASCII needs no look at which of the two it is.
            Ok(text) if self == Self::Utf8 || text.is_ascii() => Some(text),
            _ if self == Self::Utf8 => None,
            _ => {
                buffer.clear();
                buffer.extend(bytes.iter().copied().map(char::from));
                Some(buffer)
            }
        }
    }
}

/// A latin-1 letter followed by ASCII is never UTF-8, so that the lines of a latin-1 file that are not ASCII are nearly
/// all impossible in UTF-8; in a UTF-8 file only damaged ones are.
fn detect(mut reader: impl BufRead) -> io::Result<Encoding> {
    let (mut letters, mut impossible) = (0_u64, 0_u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A piece of a very long line is as good as a line: at most one letter is cut.
        if io::Read::take(&mut reader, 1 << 20).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.is_ascii() {
            continue;
        }
        match std::str::from_utf8(&line) {
            Ok(_) => letters += 1,
            Err(error) if error.error_len().is_none() => letters += 1,
            Err(_) => impossible += 1,
        }
    }
    Ok(if impossible > letters { Encoding::Latin1 } else { Encoding::Utf8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_even_with_a_damaged_line() {
        for (file, expected) in [
            (b"plain\nascii\n".as_slice(), Encoding::Utf8),
            (b"", Encoding::Utf8),
            ("Été\n映画\n".as_bytes(), Encoding::Utf8),
            (b"Mis\xE9rables, Les\nplain\n", Encoding::Latin1),
            (b"\xC3\x89t\xC3\xA9\n\xC3\xA9\n damaged \xE9 \n", Encoding::Utf8),
            (b"V\xE9ronique\nd\xE9j\xE0\nand one \xC3\xA9\n", Encoding::Latin1),
        ] {
            assert_eq!(detect(file).unwrap(), expected, "{file:?}");
        }
    }

    #[test]
    fn bytes_become_text() {
        let mut buffer = String::new();
        assert_eq!(Encoding::Latin1.decode(b"Mis\xE9rables", &mut buffer), Some("Misérables"));
        assert_eq!(Encoding::Latin1.decode("é".as_bytes(), &mut buffer), Some("Ã©"));
        assert_eq!(Encoding::Utf8.decode("é".as_bytes(), &mut buffer), Some("é"));
        assert_eq!(Encoding::Utf8.decode(b"\xE9", &mut buffer), None);
    }
}
