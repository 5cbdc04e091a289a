//! Stored files: plain, compressed, in an archive, or in parts in a folder.
//!
//! Compression is detected by the first bytes of a file. Files are read more than once, so pipes are rejected.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::CrcReader;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder};
use zip::{CompressionMethod, ZipArchive};

use super::rows::{Error, excerpt};

const BUFFER_BYTES: usize = 1 << 18;
/// Value that Hive writes for a missing column value.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Position of the mark of a tar archive.
const TAR_MARK: std::ops::Range<usize> = 257..262;
/// First bytes of kinds of files that cannot be read, their names, and what to do.
const FOREIGN: [(&[u8], &str, &str); 6] = [
    (b"\x80\x02", PICKLE, REWRITE),
    (b"\x80\x03", PICKLE, REWRITE),
    (b"\x80\x04\x95", PICKLE, REWRITE),
    (b"\x80\x05\x95", PICKLE, REWRITE),
    (b"\xFD7zXZ\0", "compressed with xz", DECOMPRESS),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "extract it first"),
];
const PICKLE: &str = "a Python pickle, which is a program";
const REWRITE: &str = "write it as Parquet or CSV with Python first";
const DECOMPRESS: &str = "decompress it first; gzip, Zstandard and zip are read";

/// One file of rows.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Path in messages; for a member of an archive, the archive and the member.
    pub(crate) path: PathBuf,
    /// Name in reports, relative to the requested folder.
    pub(crate) name: String,
    /// Column values in the names of its folders, as Hive writes them: `key=value`.
    pub(crate) partition: Vec<(String, String)>,
    /// The file on disk.
    file: PathBuf,
    member: Option<Member>,
}

/// A file in a zip archive.
#[derive(Debug, Clone, Copy)]
struct Member {
    start: u64,
    compressed_bytes: u64,
    bytes: u64,
    deflated: bool,
    crc: u32,
}

/// Returns the files of `path`: a file, a file in a zip archive (`archive.zip/folder/file`), or all files of a folder
/// in order of name. Files and folders whose names begin with `_` or `.` are ignored.
pub(crate) fn inputs(path: &Path) -> Result<Vec<Input>, Error> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let (mut inputs, folder) = (Vec::new(), name(path));
            parts(path, &folder, &[], &mut inputs)?;
            if inputs.is_empty() {
                return Err(Error::EmptyFolder(path.to_owned()));
            }
            Ok(inputs)
        }
        Ok(metadata) if metadata.is_file() => Ok(vec![input(path, name(path), &[])?]),
        Ok(_) => Err(Error::NotRegular(path.to_owned())),
        Err(source) => match path.ancestors().skip(1).find(|ancestor| ancestor.is_file()) {
            Some(archive) => {
                let wanted = path.strip_prefix(archive).unwrap_or(path).to_string_lossy();
                let (_, member) = find_member(archive, Some(&wanted))?;
                let (path, file) = (path.to_owned(), archive.to_owned());
                let input =
                    Input { name: name(&path), path, partition: Vec::new(), file, member: Some(member) };
                input.readable().map(|input| vec![input])
            }
            None => Err(reading(path)(source)),
        },
    }
}

/// Returns the files below `folder`, which reports call `name`.
fn parts(
    folder: &Path,
    name: &str,
    partition: &[(String, String)],
    inputs: &mut Vec<Input>,
) -> Result<(), Error> {
    let entries: io::Result<Vec<_>> = fs::read_dir(folder).and_then(Iterator::collect);
    let mut names: Vec<String> = entries
        .map_err(reading(folder))?
        .into_iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|entry| !entry.starts_with(['_', '.']))
        .collect();
    names.sort_unstable();
    for entry in names {
        let (path, below) = (folder.join(&entry), format!("{name}/{entry}"));
        if path.is_dir() {
            let key = entry.split_once('=').map(|(key, value)| (unescaped(key), hive_value(value)));
            let partition: Vec<_> = partition.iter().cloned().chain(key).collect();
            parts(&path, &below, &partition, inputs)?;
        } else {
            inputs.push(input(&path, below, partition)?);
        }
    }
    Ok(())
}

fn hive_value(value: &str) -> String {
    if value == HIVE_NULL { String::new() } else { unescaped(value) }
}

/// Decodes percent escapes in `text`, such as `%3A`.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn input(path: &Path, name: String, partition: &[(String, String)]) -> Result<Input, Error> {
    let file = open(path)?;
    let member = head(file).map_err(reading(path))?.starts_with(b"PK\x03\x04");
    let member = member.then(|| find_member(path, None)).transpose()?;
    let (shown, member) = match member {
        Some((inner, member)) => (path.join(inner), Some(member)),
        None => (path.to_owned(), None),
    };
    Input { path: shown, name, partition: partition.to_vec(), file: path.to_owned(), member }.readable()
}

/// Returns the member `wanted` of an archive, or its only one, with its name.
fn find_member(archive: &Path, wanted: Option<&str>) -> Result<(String, Member), Error> {
    let failed = |source| Error::Zip { file: archive.to_owned(), source };
    let mut zip = ZipArchive::new(BufReader::new(open(archive)?)).map_err(failed)?;
    let mut found: Vec<(String, usize)> = Vec::new();
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(failed)?;
        let name = entry.name().map_err(failed)?.into_owned();
        // Archives made on macOS contain a second file with each file's attributes.
        if entry.is_file() && !name.starts_with("__MACOSX/") && !name.ends_with(".DS_Store") {
            found.push((name, index));
        }
    }
    let chosen: Vec<&(String, usize)> =
        found.iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name)).collect();
    let [(name, index)] = chosen[..] else {
        let names = found.into_iter().map(|(name, _)| name).collect();
        return Err(Error::Members { file: archive.to_owned(), names });
    };
    let entry = zip.by_index_raw(*index).map_err(failed)?;
    let deflated = match entry.compression() {
        _ if entry.encrypted() => None,
        CompressionMethod::Stored => Some(false),
        CompressionMethod::Deflated => Some(true),
        _ => None,
    };
    let (Some(deflated), Some(start)) = (deflated, entry.data_start()) else {
        return Err(Error::Member { file: archive.to_owned(), name: name.clone() });
    };
    let member = Member {
        start,
        compressed_bytes: entry.compressed_size(),
        bytes: entry.size(),
        deflated,
        crc: entry.crc32(),
    };
    Ok((name.clone(), member))
}

impl Error {
    /// Creates the error for a file of unknown layout; `found` is its line number `line`.
    pub(crate) fn layout(input: &Input, line: u64, found: &str, expected: &'static str) -> Self {
        Self::Layout { file: input.path.clone(), line, found: excerpt(found), expected }
    }
}

impl Input {
    /// Creates a file of this name, for tests that do not read it.
    #[cfg(test)]
    pub(crate) fn named(name: &str) -> Self {
        let path = PathBuf::from(name);
        Self { path: path.clone(), name: name.to_owned(), partition: Vec::new(), file: path, member: None }
    }

    /// Rejects kinds of files that are known and cannot be read, by their first bytes.
    fn readable(self) -> Result<Self, Error> {
        let mut first = Vec::with_capacity(TAR_MARK.end);
        let content = self.open()?;
        content.take(TAR_MARK.end as u64).read_to_end(&mut first).map_err(reading(&self.path))?;
        let known = FOREIGN.iter().find(|(mark, ..)| first.starts_with(mark));
        let (what, advice) = match known {
            Some(&(_, what, advice)) => (what, advice),
            None if is_bzip2(&first) => ("compressed with bzip2", DECOMPRESS),
            None if first.get(TAR_MARK) == Some(b"ustar".as_slice()) => ("a tar archive", "extract it first"),
            None => return Ok(self),
        };
        Err(Error::Foreign { file: self.path, what, advice })
    }

    /// Opens its content, decompressed.
    pub(crate) fn open(&self) -> Result<Box<dyn BufRead>, Error> {
        self.decompressed().map_err(reading(&self.path))
    }

    /// Returns the size on disk in bytes.
    pub(crate) fn stored_bytes(&self) -> Result<u64, Error> {
        match &self.member {
            Some(member) => Ok(member.compressed_bytes),
            None => Ok(fs::metadata(&self.file).map_err(reading(&self.path))?.len()),
        }
    }

    /// Returns the file if it is in Parquet, by its first bytes or, if damaged, by its extension.
    pub(crate) fn parquet(&self) -> Result<Option<File>, Error> {
        let mut file = open(&self.file)?;
        let ending = self.path.extension().is_some_and(|ending| {
            ending.eq_ignore_ascii_case("parquet") || ending.eq_ignore_ascii_case("pq")
        });
        let parquet = head(&file).map_err(reading(&self.path))?.starts_with(b"PAR1");
        file.rewind().map_err(reading(&self.path))?;
        let compressed = || self.open().and_then(|content| head(content).map_err(reading(&self.path)));
        if parquet || ending {
            Ok(Some(file))
        } else if compressed()?.starts_with(b"PAR1") {
            Err(Error::CompressedParquet(self.path.clone()))
        } else {
            Ok(None)
        }
    }

    fn decompressed(&self) -> io::Result<Box<dyn BufRead>> {
        let buffered = |read: Box<dyn Read>| -> Box<dyn BufRead> {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, read))
        };
        let mut file = File::open(&self.file)?;
        if let Some(member) = self.member {
            file.seek(SeekFrom::Start(member.start))?;
            let stored = BufReader::with_capacity(BUFFER_BYTES, file).take(member.compressed_bytes);
            let content: Box<dyn Read> =
                if member.deflated { Box::new(DeflateDecoder::new(stored)) } else { Box::new(stored) };
            return Ok(buffered(Box::new(Checked { content: CrcReader::new(content), member })));
        }
        let first = head(&file)?;
        file.rewind()?;
        let stored = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(match first {
            [0x1F, 0x8B, ..] => buffered(Box::new(MultiGzDecoder::new(stored))),
            [0x28, 0xB5, 0x2F, 0xFD] => buffered(Box::new(zstd::Decoder::with_buffer(stored)?)),
            _ => Box::new(stored),
        })
    }
}

/// A member of an archive, whose checksum is verified at its end.
struct Checked {
    content: CrcReader<Box<dyn Read>>,
    member: Member,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            let crc = self.content.crc();
            if crc.sum() != self.member.crc || crc.amount() != self.member.bytes as u32 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the archive is damaged: wrong checksum",
                ));
            }
        }
        Ok(read)
    }
}

/// Whether a file begins as bzip2 does: `BZh`, the size of blocks from 1 to 9, and the mark of a block. Text may begin
/// with the first three.
fn is_bzip2(first: &[u8]) -> bool {
    const BLOCK: &[u8] = &[0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
    let after = first.strip_prefix(b"BZh");
    matches!(after, Some([b'1'..=b'9', block @ ..]) if block.starts_with(BLOCK))
}

/// Returns up to four bytes from the start.
fn head(mut content: impl Read) -> io::Result<[u8; 4]> {
    let (mut first, mut length) = ([0; 4], 0);
    while length < first.len() {
        match content.read(&mut first[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(first)
}

/// Opens the file at `path`, which must not be a pipe.
fn open(path: &Path) -> Result<File, Error> {
    // Check before opening: opening a pipe waits for a writer.
    if !fs::metadata(path).map_err(reading(path))?.is_file() {
        return Err(Error::NotRegular(path.to_owned()));
    }
    File::open(path).map_err(reading(path))
}

/// Returns a function that adds `path` to a read error.
pub(crate) fn reading(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { action: "read", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_begins_with_the_mark_of_bzip2_is_text() {
        assert!(is_bzip2(b"BZh91AY&SY\x0A"));
        for text in [&b"BZh\t1"[..], b"BZh9", b"BZh01AY&SY", b"BZh9,Title"] {
            assert!(!is_bzip2(text), "{text:?}");
        }
    }

    #[test]
    fn names_of_partitions_are_unescaped() {
        assert_eq!(unescaped("2024-01-01 10%3A00%2f"), "2024-01-01 10:00/");
        assert_eq!(unescaped("100%"), "100%");
        assert_eq!(unescaped("%zz%C3%A9"), "%zzé");
        assert_eq!(hive_value(HIVE_NULL), "");
    }
}
