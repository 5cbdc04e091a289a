//! Inspection of the folders of published versions.
//!
//! Lengths are compared in every inspection, checksums only if a file has changed since their last
//! comparison.

use std::sync::PoisonError;

use podium_files::durable;
use podium_files::stamp::Stamp;
use podium_grpo::PolicyVersion;
use podium_proto::v1;
use podium_transfer::{Base, Manifest, manifest, receive};
use sha2::{Digest, Sha256};

use super::Policies;
use super::error::Error;
use super::stamps::Inspected;

impl Policies {
    /// Checks that a version's folder contains all its files with their lengths. Does not read their content.
    pub fn look(&self, version: PolicyVersion) -> Result<Manifest, Error> {
        let manifest = self.known(version)?;
        self.stamps(&manifest)?;
        Ok(manifest)
    }

    /// Checks that a version can be served. Reads files that have changed since the last inspection.
    pub fn inspect(&self, version: PolicyVersion) -> Result<(), Error> {
        let manifest = self.known(version)?;
        let found = Inspected { content: manifest.content(), stamps: self.stamps(&manifest)? };
        let inspected = || self.inspected.lock().unwrap_or_else(PoisonError::into_inner);
        if inspected().get(&version) == Some(&found) {
            return Ok(());
        }
        let verified = manifest.verify(&self.path(version));
        verified.map_err(|source| Error::Unusable { version, source })?;
        inspected().insert(version, found);
        Ok(())
    }

    /// Reads a file of a version chunk by chunk from an offset, for as long as `send` accepts them. Chunks are deltas where
    /// that is shorter, if the receiver has a version that exists here, too.
    ///
    /// The receiver compares the checksum. If it reports a difference with `arrived_damaged`, the checksum is compared
    /// here, too: the error is returned at the end of the file, and the version is inspected again soon.
    pub fn serve(
        &self,
        manifest: &Manifest,
        request: &v1::FetchRequest,
        base: Option<Base>,
        mut send: impl FnMut(v1::Chunk) -> bool,
    ) -> Result<(), Error> {
        let version = manifest.version;
        let content = manifest.content();
        if !request.policy_content.is_empty() && request.policy_content != content.to_bytes() {
            return Err(Error::Superseded { version, content });
        }
        let no_file = || Error::NoFile { version, name: request.name.clone() };
        let file = manifest.file(&request.name).ok_or_else(no_file)?;
        let path = self.path(version).join(&file.name);
        let unusable = |source: manifest::Error| {
            self.distrust();
            Error::Unusable { version, source }
        };
        // A whole file is compared with its checksum, so it is sent without a base.
        let base = base
            .filter(|_| !request.arrived_damaged)
            .and_then(|base| self.base(base))
            .map(|folder| folder.join(&file.name));
        let mut digest = (request.arrived_damaged && request.offset_bytes == 0).then(Sha256::new);
        let chunks = receive::chunks(&path, request.offset_bytes, base.as_deref());
        for chunk in chunks.map_err(|error| unusable(error.into()))? {
            let chunk = chunk
                .map_err(|source| unusable(durable::Error::Read { path: path.clone(), source }.into()))?;
            if let Some(digest) = &mut digest {
                digest.update(&chunk.data);
            }
            if !send(chunk) {
                return Ok(());
            }
        }
        let differs = digest.is_some_and(|digest| digest.finalize()[..] != file.sha256);
        if differs { Err(unusable(manifest::Error::Damaged { path, what: "checksum" })) } else { Ok(()) }
    }

    /// Makes the next inspection of every version compare all checksums: versions share files.
    pub fn distrust(&self) {
        self.inspected.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Records a version whose checksums were compared when its folder was written.
    pub(super) fn trust(&self, manifest: &Manifest) {
        if let Ok(stamps) = self.stamps(manifest) {
            let found = Inspected { content: manifest.content(), stamps };
            self.inspected.lock().unwrap_or_else(PoisonError::into_inner).insert(manifest.version, found);
        }
    }

    fn stamps(&self, manifest: &Manifest) -> Result<Vec<Stamp>, Error> {
        let (version, folder) = (manifest.version, self.path(manifest.version));
        if !folder.is_dir() {
            return Err(Error::Gone { version, folder });
        }
        let stamp = |file: &manifest::File| {
            let seen = file.verify_length(&folder.join(&file.name));
            Ok(Stamp::from(&seen.map_err(|source| Error::Unusable { version, source })?))
        };
        manifest.files.iter().map(stamp).collect()
    }
}
