//! Downloads a policy version from the coordinator into a folder.

use std::path::{Path, PathBuf};

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_proto::v1;
use tokio_stream::StreamExt;
use tonic::{Response, Status};

use crate::connection::{self, Coordinator};
use crate::manifest::{self, Manifest};
use crate::progress::Progress;
use crate::receive::{self, Durability, Receiver};

/// The purpose of the calls that download files.
const FETCH: &str = "fetch a policy file";
/// Number of attempts at a file that arrives damaged.
const ATTEMPTS: u32 = 3;

/// The reasons why a version could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator did not answer, or refused.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The manifest is inconsistent.
    #[error("the coordinator sent an inconsistent policy manifest")]
    Manifest(#[from] podium_proto::convert::Error),
    /// A file could not be written, or arrived damaged repeatedly.
    #[error(transparent)]
    Receive(#[from] receive::Error),
}

/// The class of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The coordinator did not answer, or refused.
    Connection(connection::Kind),
    /// The manifest is inconsistent.
    Manifest,
    /// A file could not be written, or arrived damaged repeatedly.
    Receive,
}

impl Error {
    /// Returns the class of the error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connection(error) => Kind::Connection(error.kind()),
            Self::Manifest(_) => Kind::Manifest,
            Self::Receive(_) => Kind::Receive,
        }
    }
}

/// Downloads a version (default: the latest) into `into/<version>/` and returns its manifest and folder.
///
/// An interrupted transfer continues at its position, also in another process. There is no deadline while bytes arrive.
/// The folder appears under its name once all checksums match. It is not synced to the disk. An existing version is verified and not downloaded again.
pub async fn fetch(
    coordinator: &Coordinator,
    version: Option<PolicyVersion>,
    into: &Path,
) -> Result<(Manifest, PathBuf), Error> {
    let request = v1::GetManifestRequest { policy_version: version.map(|version| version.0) };
    let manifest = coordinator
        .call("get a policy manifest", || {
            let mut client = coordinator.policy();
            async move { client.get_manifest(request).await }
        })
        .await?;
    let manifest = Manifest::try_from(manifest)?;
    let target = into.join(manifest.version.0.to_string());
    if target.is_dir() {
        if manifest.verify(&target).is_ok() {
            return Ok((manifest, target));
        }
        tracing::warn!("{} is damaged: downloading it again", target.display());
    }
    let mut receiver = receiver(&manifest, &target).await?;
    for file in &manifest.files {
        fetch_file(coordinator, &mut receiver, &file.name).await?;
    }
    receiver.finish()?;
    Ok((manifest, target))
}

/// Opens the target on a thread for blocking work, because it may hash what an earlier process has downloaded.
async fn receiver(manifest: &Manifest, target: &Path) -> Result<Receiver, Error> {
    let (manifest, target) = (manifest.clone(), target.to_owned());
    let open = move || Receiver::new(manifest, &target, Durability::Cached);
    match tokio::task::spawn_blocking(open).await {
        Ok(receiver) => Ok(receiver?),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(connection::Error::Stopped { what: FETCH }.into()),
    }
}

/// Downloads the missing rest of a file, and the whole file again if it arrives damaged.
async fn fetch_file(coordinator: &Coordinator, receiver: &mut Receiver, name: &str) -> Result<(), Error> {
    for attempt in 1.. {
        // A broken stream counts as a missing answer: the next call requests the rest.
        let (progress, cell) = (Progress::default(), tokio::sync::Mutex::new(&mut *receiver));
        let rest = || fetch_rest(coordinator, &cell, name, &progress, attempt > 1);
        match coordinator.transfer(FETCH, &progress, rest).await? {
            Err(receive::Error::Damaged { .. }) if attempt < ATTEMPTS => {}
            outcome => return Ok(outcome?),
        }
    }
    Ok(())
}

/// Downloads the missing rest of a file. The inner error is local to this host and not retried.
async fn fetch_rest(
    coordinator: &Coordinator,
    receiver: &tokio::sync::Mutex<&mut Receiver>,
    name: &str,
    progress: &Progress,
    arrived_damaged: bool,
) -> Result<Response<Result<(), receive::Error>>, Status> {
    let mut receiver = receiver.lock().await;
    let offset_bytes = match receiver.received(name) {
        Ok(offset) => offset,
        Err(error) => return Ok(Response::new(Err(error))),
    };
    let manifest = receiver.manifest();
    let request = v1::FetchRequest {
        policy_version: manifest.version.0,
        name: name.to_owned(),
        offset_bytes,
        policy_content: manifest.content().to_bytes(),
        arrived_damaged,
    };
    let mut chunks = coordinator.policy().fetch(request).await?.into_inner();
    while let Some(chunk) = chunks.next().await {
        if let Err(error) = receiver.chunk(name, &chunk?) {
            return Ok(Response::new(Err(error)));
        }
        progress.gained();
    }
    Ok(Response::new(receiver.complete(name)))
}

/// Removes every downloaded version except those in `keep`, and partial downloads of others.
pub fn prune(folder: &Path, keep: &[PolicyVersion]) -> Result<(), durable::Error> {
    let failed = |source| durable::Error::Read { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let version = version_of(&name.to_string_lossy()).map(PolicyVersion);
        if version.is_some_and(|version| !keep.contains(&version)) {
            std::fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Returns the version of a folder, complete or partial; `None` for other names.
fn version_of(name: &str) -> Option<u64> {
    match receive::partial_target(name) {
        Some(version) => version.parse().ok(),
        None => name.parse().ok(),
    }
}

impl From<manifest::Error> for Error {
    fn from(error: manifest::Error) -> Self {
        Self::Receive(error.into())
    }
}
