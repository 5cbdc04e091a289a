//! The receiving end of a policy version: writes chunks into files, and renames the complete folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use podium_files::durable;
use podium_proto::v1;

use crate::manifest::{self, Manifest};

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
    /// The sender sent a chunk that does not belong there.
    Unexpected,
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
            Self::Unexpected { .. } | Self::Gap { .. } => Kind::Unexpected,
            Self::Damaged { .. } | Self::Manifest(manifest::Error::Damaged { .. }) => Kind::Damaged,
            Self::Write(_) | Self::Manifest(manifest::Error::File(_)) => Kind::File,
            Self::Manifest(_) => Kind::Folder,
        }
    }
}

/// Returns the target's name if the folder of this name holds a partial transfer.
pub(crate) fn partial_version(name: &str) -> Option<&str> {
    Some(name.strip_prefix('.')?.strip_suffix(PARTIAL)?.rsplit_once('-')?.0)
}

/// Suffix of folders with partial transfers.
const PARTIAL: &str = ".partial";

/// Receives the files of one version into a temporary folder beside the target.
#[derive(Debug)]
pub struct Receiver {
    manifest: Manifest,
    /// The temporary folder. It is hidden and named after the content, so that only a transfer of the same
    /// version continues in it.
    partial: PathBuf,
    target: PathBuf,
}

impl Receiver {
    /// Starts a transfer, or continues an earlier one of the same content.
    pub fn new(manifest: Manifest, target: &Path) -> Result<Self, Error> {
        let mut content = Vec::new();
        for file in &manifest.files {
            content.extend_from_slice(&file.sha256);
        }
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let partial = target.with_file_name(format!(".{name}-{:08x}{PARTIAL}", crc32c::crc32c(&content)));
        durable::create_folder(&partial)?;
        Ok(Self { manifest, partial, target: target.to_owned() })
    }

    /// Returns the number of received bytes of a file.
    pub fn received(&self, name: &str) -> Result<u64, Error> {
        let path = self.path(name)?;
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(durable::Error::Read { path, source }.into()),
        }
    }

    /// Appends a chunk.
    pub fn chunk(&mut self, name: &str, chunk: &v1::Chunk) -> Result<(), Error> {
        let path = self.path(name)?;
        let expected = self.received(name)?;
        if chunk.offset_bytes != expected {
            return Err(Error::Gap { name: name.to_owned(), found: chunk.offset_bytes, expected });
        }
        let damaged = |what| Error::Damaged { name: name.to_owned(), what };
        if crc32c::crc32c(&chunk.data) != chunk.crc32c {
            return Err(damaged("checksum of a chunk"));
        }
        let size = self.manifest.file(name).map_or(0, |file| file.size_bytes);
        if expected + chunk.data.len() as u64 > size {
            return Err(damaged("longer than the manifest says"));
        }
        let opened = path.parent().map_or(Ok(()), fs::create_dir_all);
        let opened = opened.and_then(|()| OpenOptions::new().create(true).append(true).open(&path));
        opened
            .and_then(|mut file| file.write_all(&chunk.data))
            .map_err(|source| durable::Error::Write { path, source }.into())
    }

    /// Checks a complete file. A damaged file is removed, so that it is sent again.
    pub fn complete(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name)?;
        let file = self.manifest.file(name).ok_or_else(|| self.unexpected(name))?;
        if file.size_bytes == 0 && !path.exists() {
            durable::create_folder(path.parent().unwrap_or(&self.partial))?;
            durable::write(&path, &[])?;
        }
        if let Err(manifest::Error::Damaged { what, .. }) = file.verify(&path) {
            fs::remove_file(&path).map_err(|source| durable::Error::Write { path, source })?;
            return Err(Error::Damaged { name: name.to_owned(), what });
        }
        Ok(())
    }

    /// Checks all files and publishes the folder.
    pub fn finish(self) -> Result<(), Error> {
        for file in &self.manifest.files {
            self.complete(&file.name)?;
        }
        Ok(durable::publish_folder(&self.partial, &self.target)?)
    }

    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        self.manifest
            .file(name)
            .map(|file| self.partial.join(&file.name))
            .ok_or_else(|| self.unexpected(name))
    }

    fn unexpected(&self, name: &str) -> Error {
        Error::Unexpected { name: name.to_owned(), version: self.manifest.version }
    }
}

/// Returns the chunks of a file from `offset_bytes` on, read lazily.
pub fn chunks(
    path: &Path,
    offset_bytes: u64,
) -> Result<impl Iterator<Item = io::Result<v1::Chunk>> + use<>, durable::Error> {
    use std::io::{Read, Seek, SeekFrom};
    let failed = |source| durable::Error::Read { path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset_bytes)).map_err(failed)?;
    let mut offset_bytes = offset_bytes;
    Ok(std::iter::from_fn(move || {
        let mut data = Vec::new();
        match Read::by_ref(&mut file).take(podium_proto::MAX_CHUNK_BYTES as u64).read_to_end(&mut data) {
            Ok(0) => None,
            Ok(read) => {
                let chunk = v1::Chunk { offset_bytes, crc32c: crc32c::crc32c(&data), data };
                offset_bytes += read as u64;
                Some(Ok(chunk))
            }
            Err(error) => Some(Err(error)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use podium_grpo::PolicyVersion;

    use super::*;
    use crate::manifest::{describe, tests::folder};

    #[test]
    fn a_broken_transfer_continues_and_the_folder_appears_complete() {
        let weights: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (source, target) = (folder(&weights), tempfile::tempdir().unwrap());
        let target = target.path().join("7");
        let templates = source.path().join("additional_chat_templates");
        fs::create_dir(&templates).unwrap();
        fs::write(templates.join("default.jinja"), "{{ messages }}").unwrap();
        fs::write(templates.join("empty.jinja"), "").unwrap();
        let manifest = describe(source.path(), PolicyVersion(7), "cafe", "f00d").unwrap();
        let sent =
            |name: &str, offset| chunks(&source.path().join(name), offset).unwrap().map(Result::unwrap);

        let mut first = Receiver::new(manifest.clone(), &target).unwrap();
        let start = sent("model.safetensors", 0).next().unwrap();
        first.chunk("model.safetensors", &start).unwrap();
        drop(first);
        assert!(!target.exists());

        let mut second = Receiver::new(manifest.clone(), &target).unwrap();
        for file in &manifest.files {
            let offset = second.received(&file.name).unwrap();
            assert_eq!(offset > 0, file.name == "model.safetensors");
            for chunk in sent(&file.name, offset) {
                second.chunk(&file.name, &chunk).unwrap();
            }
        }
        second.finish().unwrap();
        manifest.verify(&target).unwrap();
        for name in ["additional_chat_templates/default.jinja", "additional_chat_templates/empty.jinja"] {
            assert!(manifest.file(name).is_some() && target.join(name).is_file(), "{name}");
        }
    }

    #[test]
    fn invalid_chunks_are_refused() {
        let (source, target) = (folder(b"weights"), tempfile::tempdir().unwrap());
        let manifest = describe(source.path(), PolicyVersion(1), "cafe", "f00d").unwrap();
        let mut receiver = Receiver::new(manifest, &target.path().join("1")).unwrap();
        let chunk = |offset_bytes, data: &[u8]| v1::Chunk {
            offset_bytes,
            data: data.to_vec(),
            crc32c: crc32c::crc32c(data),
        };
        let name = "model.safetensors";
        assert!(matches!(receiver.chunk("other", &chunk(0, b"x")), Err(Error::Unexpected { .. })));
        assert!(matches!(receiver.chunk(name, &chunk(1, b"x")), Err(Error::Gap { expected: 0, .. })));
        assert!(matches!(receiver.chunk(name, &chunk(0, b"weights and more")), Err(Error::Damaged { .. })));
        let wrong = v1::Chunk { crc32c: 1, ..chunk(0, b"w") };
        assert!(matches!(receiver.chunk(name, &wrong), Err(Error::Damaged { .. })));
        receiver.chunk(name, &chunk(0, b"wEights")).unwrap();
        assert!(matches!(receiver.complete(name), Err(Error::Damaged { what: "checksum", .. })));
        assert_eq!(receiver.received(name).unwrap(), 0, "a damaged file is sent again from its start");
    }
}
