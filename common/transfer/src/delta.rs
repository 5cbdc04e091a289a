//! Deltas: a chunk of a file as its compressed difference from the same bytes of a version that the receiver has.
//!
//! In bfloat16 most weights of consecutive versions are equal, so that the difference consists mostly of zeros. The bytes
//! are combined by XOR, those at even positions are placed before those at odd ones, and the result is compressed with
//! zstd. The checksum of the complete file decides whether a version arrived: a delta needs none of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use podium_grpo::PolicyVersion;
use podium_proto::convert::Error as MessageError;
use podium_proto::{MAX_CHUNK_BYTES, v1};
use zstd::bulk::{self, Compressor};

use crate::manifest::{Content, Manifest};

/// zstd's fastest regular level.
const LEVEL: i32 = 1;
/// A delta is sent if its chunk shrinks at least by this factor.
const LEAST_RATIO: usize = 2;
/// Number of chunks that are sent in full after one that does not shrink, before the next attempt.
const PAUSE: u32 = 31;

/// A version that sender and receiver have, to which deltas refer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Its number.
    pub version: PolicyVersion,
    /// Its content.
    pub content: Content,
}

impl TryFrom<v1::PolicyBase> for Base {
    type Error = MessageError;

    fn try_from(message: v1::PolicyBase) -> Result<Self, MessageError> {
        let content = Content::read("PolicyBase.policy_content", &message.policy_content)?;
        Ok(Self { version: PolicyVersion(message.policy_version), content })
    }
}

impl From<Base> for v1::PolicyBase {
    fn from(base: Base) -> Self {
        Self { policy_version: base.version.0, policy_content: base.content.to_bytes() }
    }
}

/// A base with its files on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalBase {
    /// The version.
    pub base: Base,
    /// The folder of its verified files.
    pub folder: PathBuf,
}

impl LocalBase {
    /// The version of a manifest, whose files are in `folder`.
    pub fn new(manifest: &Manifest, folder: &Path) -> Self {
        let base = Base { version: manifest.version, content: manifest.content() };
        Self { base, folder: folder.to_owned() }
    }
}

/// Encodes the chunks of one file, in order.
pub(crate) struct Encoder {
    base: File,
    compressor: Compressor<'static>,
    /// Number of chunks to send in full before the next attempt.
    pause: u32,
}

impl Encoder {
    /// Opens the file's counterpart in the base; `None` if it does not exist or differs in length.
    pub(crate) fn open(base: &Path, length: u64) -> Option<Self> {
        let base = File::open(base).ok()?;
        let comparable = base.metadata().is_ok_and(|found| found.is_file() && found.len() == length);
        let compressor = Compressor::new(LEVEL).ok()?;
        comparable.then_some(Self { base, compressor, pause: 0 })
    }

    /// Returns the delta of the bytes at `offset_bytes`; `None` if it would not be much shorter.
    pub(crate) fn encode(&mut self, offset_bytes: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        let mut before = vec![0; bytes.len()];
        self.base.read_exact_at(&mut before, offset_bytes).ok()?;
        let delta = self.compressor.compress(&difference(&before, bytes)).ok()?;
        if delta.len() * LEAST_RATIO <= bytes.len() {
            return Some(delta);
        }
        self.pause = PAUSE;
        None
    }
}

/// Decodes chunks against the files of a base.
#[derive(Debug)]
pub(crate) struct Decoder {
    folder: PathBuf,
    /// The file of the last chunk.
    open: Option<(String, File)>,
}

impl Decoder {
    /// Creates a decoder for the base in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), open: None }
    }

    /// Returns the bytes of the file `name` that a chunk encodes. Never allocates more than a chunk's data may have.
    pub(crate) fn decode(&mut self, name: &str, chunk: &v1::Chunk) -> io::Result<Vec<u8>> {
        let length = chunk.delta_bytes as usize;
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if length > MAX_CHUNK_BYTES {
            return Err(invalid("the delta is larger than a chunk"));
        }
        let mut bytes = vec![0; length];
        self.file(name)?.read_exact_at(&mut bytes, chunk.offset_bytes)?;
        let difference = bulk::decompress(&chunk.data, length)?;
        if difference.len() != length {
            return Err(invalid("the delta has another length than its chunk says"));
        }
        apply(&difference, &mut bytes);
        Ok(bytes)
    }

    /// Returns the base's file of this name.
    fn file(&mut self, name: &str) -> io::Result<&File> {
        let (_, file) = match self.open.take() {
            Some(open) if open.0 == name => self.open.insert(open),
            _ => self.open.insert((name.to_owned(), File::open(self.folder.join(name))?)),
        };
        Ok(file)
    }
}

/// Returns the XOR of two parts of equal length, the bytes at even positions before those at odd ones.
fn difference(before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut difference = vec![0; before.len()];
    let (even, odd) = difference.split_at_mut(before.len().div_ceil(2));
    let ((before, last_before), (after, last_after)) = (before.as_chunks::<2>(), after.as_chunks::<2>());
    for (((even, odd), before), after) in even.iter_mut().zip(odd).zip(before).zip(after) {
        (*even, *odd) = (before[0] ^ after[0], before[1] ^ after[1]);
    }
    if let ([before], [after], Some(last)) = (last_before, last_after, even.last_mut()) {
        *last = before ^ after;
    }
    difference
}

/// The inverse of [`difference`]: turns the bytes before into those after.
fn apply(difference: &[u8], bytes: &mut [u8]) {
    let (even, odd) = difference.split_at(bytes.len().div_ceil(2));
    let (pairs, last) = bytes.as_chunks_mut::<2>();
    for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
        *pair = [pair[0] ^ even, pair[1] ^ odd];
    }
    if let ([last], Some(difference)) = (last, even.last()) {
        *last ^= difference;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const NAME: &str = "model.safetensors";

    /// Bytes without a pattern.
    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn base(bytes: &[u8]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), bytes).unwrap();
        folder
    }

    fn encoder(base: &TempDir, length: usize) -> Option<Encoder> {
        Encoder::open(&base.path().join(NAME), length as u64)
    }

    fn chunk(offset_bytes: u64, data: Vec<u8>, delta_bytes: usize) -> v1::Chunk {
        v1::Chunk { offset_bytes, crc32c: crc32c::crc32c(&data), data, delta_bytes: delta_bytes as u32 }
    }

    #[test]
    fn a_chunk_with_few_changes_is_short_and_restored_exactly() {
        for length in [1_000, 65_537, MAX_CHUNK_BYTES] {
            let before = noise(3 * length, 1);
            let mut after = before.clone();
            after[length..].iter_mut().step_by(97).for_each(|byte| *byte ^= 1);
            let folder = base(&before);
            let mut encoder = encoder(&folder, after.len()).unwrap();
            let mut decoder = Decoder::new(folder.path());
            for start in (0..after.len()).step_by(length) {
                let bytes = &after[start..start + length];
                let delta = encoder.encode(start as u64, bytes).unwrap();
                assert!(delta.len() * 8 < length, "{} of {length} bytes", delta.len());
                let restored = decoder.decode(NAME, &chunk(start as u64, delta, length)).unwrap();
                assert!(restored == bytes, "{length} bytes at {start}");
            }
        }
    }

    #[test]
    fn chunks_that_do_not_shrink_are_sent_in_full_and_rarely_attempted() {
        let folder = base(&noise(100_000, 1));
        let other = noise(100_000, 2);
        let mut encoder = encoder(&folder, other.len()).unwrap();
        assert_eq!(encoder.encode(0, &other[..10_000]), None);
        assert_eq!(encoder.pause, PAUSE);
        let equal = &noise(100_000, 1)[..10_000];
        for _ in 0..PAUSE {
            assert_eq!(encoder.encode(0, equal), None);
        }
        assert!(encoder.encode(0, equal).is_some());
    }

    #[test]
    fn a_base_of_another_length_or_without_the_file_is_not_used() {
        let folder = base(b"weights");
        assert!(encoder(&folder, 7).is_some() && encoder(&folder, 8).is_none());
        assert!(
            Encoder::open(folder.path(), 7).is_none()
                && Encoder::open(&folder.path().join("no"), 7).is_none()
        );
    }

    #[test]
    fn harmful_deltas_are_refused() {
        let folder = base(&[0; 1_000]);
        let mut decoder = Decoder::new(folder.path());
        let packed = |length: usize| bulk::compress(&vec![0; length], LEVEL).unwrap();
        let mut refused = |name: &str, chunk: v1::Chunk| decoder.decode(name, &chunk).unwrap_err();
        refused(NAME, chunk(0, packed(1 << 28), 1_000));
        refused(NAME, chunk(0, packed(999), 1_000));
        refused(NAME, chunk(1, packed(1_000), 1_000));
        refused(NAME, chunk(u64::MAX, packed(1_000), 1_000));
        refused(NAME, chunk(0, packed(MAX_CHUNK_BYTES + 1), MAX_CHUNK_BYTES + 1));
        refused(NAME, chunk(0, b"no zstd".to_vec(), 1_000));
        refused("other", chunk(0, packed(1_000), 1_000));
        assert_eq!(decoder.decode(NAME, &chunk(0, packed(1_000), 1_000)).unwrap(), [0; 1_000]);
    }
}
