//! The receiving end of a policy version: writes chunks into files, and renames the complete folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use podium_files::durable::{self, Durability};
use podium_proto::v1;
use sha2::{Digest, Sha256};

use crate::delta::{Decoder, Encoder};
use crate::manifest::{self, File, Manifest};

/// The reasons why a version could not be received.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A chunk belongs to a file that the manifest does not list.
    #[error("received a chunk of {name:?}, which the manifest of {version} does not list")]
    Unexpected {
        /// The file.
        name: String,
        /// The version.
        version: podium_grpo::PolicyVersion,
    },
    /// A chunk does not continue the file.
    #[error("a chunk of {name} starts at byte {found}: expected {expected}")]
    Gap {
        /// The file.
        name: String,
        /// Start of the chunk, in bytes.
        found: u64,
        /// Number of received bytes.
        expected: u64,
    },
    /// A chunk or file differs from its checksum.
    #[error("{name} arrived damaged ({what})")]
    Damaged {
        /// The file.
        name: String,
        /// The difference.
        what: &'static str,
    },
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] durable::Error),
    /// The finished folder does not match its manifest.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
}

/// The class of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The sender sent a chunk of an unknown file.
    Unexpected,
    /// The sender continued a file at another position.
    Gap,
    /// A chunk, a file or the folder differs from its checksum.
    Damaged,
    /// A file cannot be written or read here.
    File,
    /// The folder does not match its manifest otherwise.
    Folder,
}

impl Error {
    /// Returns the class of the error.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Unexpected { .. } => Kind::Unexpected,
            Self::Gap { .. } => Kind::Gap,
            Self::Damaged { .. } | Self::Manifest(manifest::Error::Damaged { .. }) => Kind::Damaged,
            Self::Write(_) | Self::Manifest(manifest::Error::File(_)) => Kind::File,
            Self::Manifest(_) => Kind::Folder,
        }
    }
}

/// Suffix of folders with partial transfers.
const PARTIAL: &str = ".partial";
/// Number of bytes after which a durable transfer is synced, so that little is left to sync at its end.
const SYNC_EVERY: u64 = 64 << 20;

/// Returns the target's name if the folder of this name holds a partial transfer.
pub fn partial_target(name: &str) -> Option<&str> {
    Some(name.strip_prefix('.')?.strip_suffix(PARTIAL)?.rsplit_once('-')?.0)
}

/// Returns the folder of a partial transfer. It is hidden and named after the content, so that only a transfer of the
/// same content continues in it.
pub fn partial_folder(manifest: &Manifest, target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}-{}{PARTIAL}", manifest.content()))
}

/// Returns the function that publishes a folder of such files.
fn publisher(durability: Durability) -> fn(&Path, &Path) -> Result<(), durable::Error> {
    match durability {
        Durability::Durable => durable::publish_folder,
        Durability::Cached => durable::publish_cached_folder,
    }
}

/// Receives the files of one version into a temporary folder beside the target. Bytes are hashed as they arrive.
#[derive(Debug)]
pub struct Receiver {
    manifest: Manifest,
    partial: PathBuf,
    target: PathBuf,
    durability: Durability,
    /// For each file of the manifest.
    files: Vec<Received>,
    /// The file that receives chunks.
    open: Option<Open>,
    /// Decodes deltas, if there is a base.
    decoder: Option<Decoder>,
}

/// The received part of a file.
#[derive(Debug, Default)]
struct Received {
    bytes: u64,
    digest: Sha256,
}

#[derive(Debug)]
struct Open {
    index: usize,
    file: fs::File,
    unsynced: u64,
}

impl Receiver {
    /// Starts a transfer, or continues an earlier one of the same content, whose bytes it hashes.
    pub fn new(manifest: Manifest, target: &Path, durability: Durability) -> Result<Self, Error> {
        let partial = partial_folder(&manifest, target);
        durable::create_folder(&partial)?;
        let received = |file: &File| {
            let path = partial.join(&file.name);
            if bytes_on_disk(&path, file)? == 0 {
                return Ok(Received::default());
            }
            let (digest, bytes) = durable::sha256_so_far(&path)?;
            Ok(Received { bytes, digest })
        };
        let files = manifest.files.iter().map(received).collect::<Result<_, Error>>()?;
        Ok(Self {
            manifest,
            partial,
            target: target.to_owned(),
            durability,
            files,
            open: None,
            decoder: None,
        })
    }

    /// Sets the folder of the base of later chunks that are deltas.
    pub fn set_base(&mut self, folder: Option<&Path>) {
        self.decoder = folder.map(Decoder::new);
    }

    /// The version.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns whether a transfer of this version continues here: nothing has changed its files since the last chunk.
    pub fn continues(&self, manifest: &Manifest) -> bool {
        let as_received = |(file, received): (&File, &Received)| {
            bytes_on_disk(&self.partial.join(&file.name), file).is_ok_and(|bytes| bytes == received.bytes)
        };
        self.manifest == *manifest && manifest.files.iter().zip(&self.files).all(as_received)
    }

    /// Returns the number of received bytes of a file.
    pub fn received(&self, name: &str) -> Result<u64, Error> {
        Ok(self.files[self.index(name)?].bytes)
    }

    /// Appends a chunk.
    pub fn chunk(&mut self, name: &str, chunk: &v1::Chunk) -> Result<(), Error> {
        let index = self.index(name)?;
        let expected = self.files[index].bytes;
        if chunk.offset_bytes != expected {
            return Err(Error::Gap { name: name.to_owned(), found: chunk.offset_bytes, expected });
        }
        let damaged = |what| Error::Damaged { name: name.to_owned(), what };
        if crc32c::crc32c(&chunk.data) != chunk.crc32c {
            return Err(damaged("checksum of a chunk"));
        }
        let length =
            if chunk.delta_bytes == 0 { chunk.data.len() as u64 } else { u64::from(chunk.delta_bytes) };
        if expected + length > self.manifest.files[index].size_bytes {
            return Err(damaged("longer than the manifest says"));
        }
        if chunk.delta_bytes == 0 {
            return self.append(index, &chunk.data);
        }
        let Some(decoder) = &mut self.decoder else { return Err(damaged("delta without a base")) };
        let bytes = decoder.decode(name, chunk).map_err(|error| {
            tracing::warn!("cannot apply a delta of {name}: {error}");
            damaged("delta of a chunk")
        })?;
        self.append(index, &bytes)
    }

    fn append(&mut self, index: usize, data: &[u8]) -> Result<(), Error> {
        let open = self.open.take().filter(|open| open.index == index);
        let mut open = open.map_or_else(|| self.open_file(index), Ok)?;
        let path = self.path(index);
        let failed = |source| durable::Error::Write { path, source };
        open.file.write_all(data).map_err(failed.clone())?;
        let received = &mut self.files[index];
        received.digest.update(data);
        received.bytes += data.len() as u64;
        open.unsynced += data.len() as u64;
        if self.durability == Durability::Durable && open.unsynced >= SYNC_EVERY {
            open.file.sync_data().map_err(failed)?;
            open.unsynced = 0;
        }
        self.open = Some(open);
        Ok(())
    }

    /// Opens a file at the end of its received part. A failed write may have left more bytes.
    fn open_file(&mut self, index: usize) -> Result<Open, Error> {
        let (path, bytes) = (self.path(index), self.files[index].bytes);
        let failed = |source| durable::Error::Write { path: path.clone(), source };
        path.parent().map_or(Ok(()), durable::create_folder)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() < bytes {
            self.discard(index)?;
            let name = self.manifest.files[index].name.clone();
            return Err(Error::Damaged { name, what: "shorter than what was received" });
        }
        file.set_len(bytes).map_err(failed)?;
        Ok(Open { index, file, unsynced: 0 })
    }

    /// Checks a complete file. A damaged file is removed, so that it is sent again; the rest of a short one is missing.
    pub fn complete(&mut self, name: &str) -> Result<(), Error> {
        let index = self.index(name)?;
        if self.manifest.files[index].size_bytes == 0 {
            self.append(index, &[])?;
        }
        let file = &self.manifest.files[index];
        if self.files[index].bytes < file.size_bytes {
            return Err(Error::Damaged { name: name.to_owned(), what: "it ends early" });
        }
        let what = match file.verify_length(&self.path(index)) {
            Err(manifest::Error::File(error)) => return Err(error.into()),
            Err(_) => "length",
            Ok(_) if self.files[index].digest.clone().finalize()[..] != file.sha256 => "checksum",
            Ok(_) => return Ok(()),
        };
        self.discard(index)?;
        Err(Error::Damaged { name: name.to_owned(), what })
    }

    fn discard(&mut self, index: usize) -> Result<(), Error> {
        self.open = None;
        self.files[index] = Received::default();
        let path = self.path(index);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(durable::Error::Write { path, source }.into())
            }
            _ => Ok(()),
        }
    }

    /// Checks all files and publishes the folder. Removes every damaged file before it returns the first error.
    pub fn finish(mut self) -> Result<(), Error> {
        let names: Vec<String> = self.manifest.files.iter().map(|file| file.name.clone()).collect();
        let checked: Vec<_> = names.iter().map(|name| self.complete(name)).collect();
        checked.into_iter().collect::<Result<(), Error>>()?;
        Ok(publisher(self.durability)(&self.partial, &self.target)?)
    }

    fn path(&self, index: usize) -> PathBuf {
        self.partial.join(&self.manifest.files[index].name)
    }

    fn index(&self, name: &str) -> Result<usize, Error> {
        let unexpected = || Error::Unexpected { name: name.to_owned(), version: self.manifest.version };
        self.manifest.files.iter().position(|file| file.name == name).ok_or_else(unexpected)
    }
}

/// Returns the number of bytes of each file that an earlier transfer to `target` received. Files without a received byte
/// are not listed.
pub fn received_before(manifest: &Manifest, target: &Path) -> Result<Vec<(String, u64)>, Error> {
    let partial = partial_folder(manifest, target);
    let received = |file: &File| Ok((file.name.clone(), bytes_on_disk(&partial.join(&file.name), file)?));
    let received = manifest.files.iter().map(received).collect::<Result<Vec<_>, Error>>()?;
    Ok(received.into_iter().filter(|(_, bytes)| *bytes > 0).collect())
}

/// Returns the length of a partial file. A file that is longer than the complete one counts as empty.
fn bytes_on_disk(path: &Path, file: &File) -> Result<u64, Error> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > file.size_bytes => Ok(0),
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(durable::Error::Read { path: path.to_owned(), source }.into()),
    }
}

/// Returns the chunks of a file from `offset_bytes` on, read lazily. With the file of a base, chunks that it shortens are
/// deltas.
pub fn chunks(
    path: &Path,
    offset_bytes: u64,
    base: Option<&Path>,
) -> Result<impl Iterator<Item = io::Result<v1::Chunk>> + use<>, durable::Error> {
    use std::io::{Read, Seek, SeekFrom};
    let failed = |source| durable::Error::Read { path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset_bytes)).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut encoder = base.and_then(|base| Encoder::open(base, length));
    let mut offset_bytes = offset_bytes;
    Ok(std::iter::from_fn(move || {
        let mut data = Vec::new();
        match Read::by_ref(&mut file).take(podium_proto::MAX_CHUNK_BYTES as u64).read_to_end(&mut data) {
            Ok(0) => None,
            Ok(read) => {
                let delta = encoder.as_mut().and_then(|encoder| encoder.encode(offset_bytes, &data));
                let (data, delta_bytes) = delta.map_or((data, 0), |delta| (delta, read as u32));
                let chunk = v1::Chunk { offset_bytes, crc32c: crc32c::crc32c(&data), data, delta_bytes };
                offset_bytes += read as u64;
                Some(Ok(chunk))
            }
            Err(error) => Some(Err(error)),
        }
    }))
}

#[cfg(test)]
mod tests;
