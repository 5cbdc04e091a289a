//! The manifest of a policy version.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_files::durable::{self, hex};
use podium_grpo::PolicyVersion;
use podium_proto::convert::Error as MessageError;
use podium_proto::{TEMPLATE_FOLDER, check_file_name, v1};
use sha2::{Digest, Sha256};

/// The files that determine a policy's fingerprint; weights are excluded.
const FINGERPRINTED: [&str; 2] = ["config.json", "tokenizer.json"];

/// A policy version: its run and its files in the order of transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The version.
    pub version: PolicyVersion,
    /// Hash of the run it belongs to.
    pub run_hash: String,
    /// [`fingerprint`] of its folder.
    pub model_fingerprint: String,
    /// Its files, by name.
    pub files: Vec<File>,
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Plain name, or a name in the folder of additional chat templates.
    pub name: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Checksum of the content.
    pub sha256: [u8; 32],
}

/// Identifies the content of a version: SHA-256 over the names, lengths and checksums of its files.
///
/// A version's number does not identify a policy: another policy can supersede a version under the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content([u8; 32]);

impl Content {
    /// Reads the content of a message's field.
    pub fn read(field: &'static str, bytes: &[u8]) -> Result<Self, MessageError> {
        let of = "byte of a SHA-256 checksum";
        let length = |_| MessageError::Length { field, found: bytes.len(), expected: 32, of };
        bytes.try_into().map(Self).map_err(length)
    }

    /// Returns the first 48 bits, which [`Self`] is displayed as.
    pub(crate) fn prefix(self) -> u64 {
        self.0[..6].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The bytes in messages.
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Display for Content {
    /// The first bytes, in hexadecimal: enough to distinguish contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..6]))
    }
}

/// The errors of a policy folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be listed.
    #[error("cannot read the policy folder {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] durable::Error),
    /// A file's name is not transferable.
    #[error(transparent)]
    Name(#[from] MessageError),
    /// A required file is missing.
    #[error("the policy folder {} has no {name}", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file.
        name: String,
    },
    /// A file differs from its checksum.
    #[error("{} is damaged: its {what} differs from the manifest's", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Length or checksum.
        what: &'static str,
    },
}

/// Lists the files of a policy folder with checksums. Skips hidden files, and subfolders except that of additional
/// chat templates.
///
/// `model_fingerprint` is that of version 0: a version with only an adapter has none of its own.
pub fn describe(
    folder: &Path,
    version: PolicyVersion,
    run_hash: &str,
    model_fingerprint: &str,
) -> Result<Manifest, Error> {
    let failed = |source| Error::Folder { folder: folder.to_owned(), source };
    let mut names = Vec::new();
    for (prefix, folder) in [("", folder.to_owned()), (TEMPLATE_FOLDER, folder.join(TEMPLATE_FOLDER))] {
        if !prefix.is_empty() && !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.path().is_file() {
                let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                check_file_name(&name)?;
                names.push(name);
            }
        }
    }
    names.sort();
    let file = |name: String| {
        let path = folder.join(&name);
        let size_bytes = fs::metadata(&path).map_err(failed)?.len();
        Ok(File { size_bytes, sha256: durable::sha256(&path)?, name })
    };
    Ok(Manifest {
        version,
        run_hash: run_hash.to_owned(),
        model_fingerprint: model_fingerprint.to_owned(),
        files: names.into_iter().map(file).collect::<Result<_, Error>>()?,
    })
}

/// SHA-256 over architecture and tokenizer, as hexadecimal text: equal for all versions of a run's policy.
pub fn fingerprint(folder: &Path) -> Result<String, Error> {
    let mut digest = Sha256::new();
    for name in FINGERPRINTED {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(Error::Missing { folder: folder.to_owned(), name: name.to_owned() });
        }
        digest.update(durable::sha256(&path)?);
    }
    Ok(hex(&digest.finalize()))
}

impl Manifest {
    /// Checks every file of a folder against its length and checksum.
    pub fn verify(&self, folder: &Path) -> Result<(), Error> {
        self.files.iter().try_for_each(|file| file.verify(&folder.join(&file.name)))
    }

    /// Identifies the files and their contents, independent of version and run.
    pub fn content(&self) -> Content {
        let mut digest = Sha256::new();
        for File { name, size_bytes, sha256 } in &self.files {
            digest.update((name.len() as u64).to_le_bytes());
            digest.update(name);
            digest.update(size_bytes.to_le_bytes());
            digest.update(sha256);
        }
        Content(digest.finalize().into())
    }

    /// The file of that name.
    pub fn file(&self, name: &str) -> Option<&File> {
        self.files.iter().find(|file| file.name == name)
    }
}

impl File {
    /// Checks the file at `path` against length and checksum.
    pub fn verify(&self, path: &Path) -> Result<(), Error> {
        self.verify_length(path)?;
        let damaged = Error::Damaged { path: path.to_owned(), what: "checksum" };
        if durable::sha256(path)? == self.sha256 { Ok(()) } else { Err(damaged) }
    }

    /// Checks the length of the file at `path`, and returns its metadata.
    pub fn verify_length(&self, path: &Path) -> Result<fs::Metadata, Error> {
        let metadata = fs::metadata(path).map_err(|source| {
            let (folder, name) = (path.parent().unwrap_or(path).to_owned(), self.name.clone());
            match source.kind() {
                io::ErrorKind::NotFound => Error::Missing { folder, name },
                _ => durable::Error::Read { path: path.to_owned(), source }.into(),
            }
        })?;
        let damaged = Error::Damaged { path: path.to_owned(), what: "length" };
        if metadata.len() == self.size_bytes { Ok(metadata) } else { Err(damaged) }
    }
}

impl From<&Manifest> for v1::PolicyManifest {
    fn from(manifest: &Manifest) -> Self {
        let file = |file: &File| v1::PolicyFile {
            name: file.name.clone(),
            size_bytes: file.size_bytes,
            sha256: file.sha256.to_vec(),
        };
        Self {
            policy_version: manifest.version.0,
            run_hash: manifest.run_hash.clone(),
            model_fingerprint: manifest.model_fingerprint.clone(),
            files: manifest.files.iter().map(file).collect(),
            folder: String::new(),
        }
    }
}

impl TryFrom<v1::PolicyManifest> for Manifest {
    type Error = MessageError;

    fn try_from(message: v1::PolicyManifest) -> Result<Self, MessageError> {
        let mut files: Vec<File> = Vec::with_capacity(message.files.len());
        for file in message.files {
            check_file_name(&file.name)?;
            if files.last().is_some_and(|before| before.name >= file.name) {
                return Err(MessageError::Invalid {
                    field: "PolicyManifest.files",
                    value: format!("out of order at {:?}", file.name),
                    expected: "different names in ascending order",
                });
            }
            let sha256 = file.sha256.as_slice().try_into().map_err(|_| MessageError::Length {
                field: "PolicyFile.sha256",
                found: file.sha256.len(),
                expected: 32,
                of: "byte of a SHA-256 checksum",
            })?;
            files.push(File { name: file.name, size_bytes: file.size_bytes, sha256 });
        }
        if files.is_empty() {
            return Err(MessageError::Missing { field: "PolicyManifest.files" });
        }
        Ok(Self {
            version: PolicyVersion(message.policy_version),
            run_hash: message.run_hash,
            model_fingerprint: message.model_fingerprint,
            files,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder with the files of a policy.
    pub(crate) fn folder(weights: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), b"{}").unwrap();
        fs::write(folder.path().join("tokenizer.json"), b"{\"a\":1}").unwrap();
        fs::write(folder.path().join("model.safetensors"), weights).unwrap();
        folder
    }

    #[test]
    fn a_manifest_survives_conversion_and_detects_damage() {
        let folder = folder(b"weights");
        let manifest = describe(folder.path(), PolicyVersion(3), "cafe", "f00d").unwrap();
        let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
        let back = Manifest::try_from(v1::PolicyManifest::from(&manifest)).unwrap();
        assert_eq!(back, manifest);
        manifest.verify(folder.path()).unwrap();
        fs::write(folder.path().join("model.safetensors"), b"wEights").unwrap();
        assert!(matches!(manifest.verify(folder.path()), Err(Error::Damaged { what: "checksum", .. })));
    }

    #[test]
    fn content_depends_on_the_files_and_not_on_the_version() {
        let (one, other) = (folder(b"1"), folder(b"2"));
        let content = |folder: &tempfile::TempDir, version| {
            describe(folder.path(), PolicyVersion(version), "cafe", "f00d").unwrap().content()
        };
        assert_eq!(content(&one, 1), content(&one, 2));
        assert_ne!(content(&one, 1), content(&other, 1));
        let read = Content::read("Lease.policy_content", &content(&one, 1).to_bytes()).unwrap();
        assert_eq!(read, content(&one, 1));
        let short = Content::read("Lease.policy_content", &[1]).unwrap_err().to_string();
        assert!(short.contains("Lease.policy_content"), "{short}");
    }

    #[test]
    fn the_fingerprint_excludes_weights() {
        let (one, other) = (folder(b"1"), folder(b"2"));
        assert_eq!(fingerprint(one.path()).unwrap(), fingerprint(other.path()).unwrap());
        fs::write(other.path().join("config.json"), b"{ }").unwrap();
        assert_ne!(fingerprint(one.path()).unwrap(), fingerprint(other.path()).unwrap());
        fs::remove_file(other.path().join("config.json")).unwrap();
        assert!(fingerprint(other.path()).unwrap_err().to_string().contains("has no config.json"));
    }

    #[test]
    fn harmful_manifests_are_refused() {
        let folder = folder(b"weights");
        let good =
            v1::PolicyManifest::from(&describe(folder.path(), PolicyVersion(0), "cafe", "f00d").unwrap());
        let refused = |change: fn(&mut v1::PolicyManifest)| {
            let mut message = good.clone();
            change(&mut message);
            Manifest::try_from(message).unwrap_err();
        };
        refused(|m| m.files.clear());
        refused(|m| m.files[0].name = "../config.json".into());
        refused(|m| m.files[1].name = m.files[0].name.clone());
        refused(|m| m.files[0].sha256.truncate(31));
    }
}
