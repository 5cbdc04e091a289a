//! Copies a policy version from the coordinator into a folder: by links on the coordinator's host, by download elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use podium_files::durable::{self, Durability};
use podium_grpo::PolicyVersion;
use podium_proto::v1;
use podium_service::logs::describe;
use tokio_stream::StreamExt;
use tonic::{Response, Status};

use crate::connection::{self, Coordinator};
use crate::delta::LocalBase;
use crate::link;
use crate::manifest::{self, Manifest};
use crate::progress::Progress;
use crate::receive::{self, Receiver};

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
    /// Another process downloads the version and makes no progress.
    #[error(
        "another process downloads {version} into {} and has received nothing for {} s: end that process, or use another \
         folder with --cache",
        folder.display(),
        waited.as_secs()
    )]
    Waited {
        /// The version.
        version: PolicyVersion,
        /// The target folder.
        folder: PathBuf,
        /// Duration without progress.
        waited: Duration,
    },
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
    /// Another process downloads the version and makes no progress.
    Waited,
}

impl Error {
    /// Returns the class of the error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connection(error) => Kind::Connection(error.kind()),
            Self::Manifest(_) => Kind::Manifest,
            Self::Receive(_) => Kind::Receive,
            Self::Waited { .. } => Kind::Waited,
        }
    }
}

/// A version that the coordinator serves.
#[derive(Debug, Clone)]
pub struct Served {
    manifest: Manifest,
    /// Its folder on the coordinator's host, which may be this one.
    origin: Option<PathBuf>,
}

impl Served {
    #[cfg(test)]
    pub(crate) const fn new(manifest: Manifest, origin: Option<PathBuf>) -> Self {
        Self { manifest, origin }
    }

    /// The version.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the version without its folder, so that it is downloaded also on the coordinator's host.
    #[must_use]
    pub fn without_origin(self) -> Self {
        Self { origin: None, ..self }
    }
}

/// Requests the manifest of a version, by default of the latest.
pub async fn served(coordinator: &Coordinator, version: Option<PolicyVersion>) -> Result<Served, Error> {
    let request = v1::GetManifestRequest { policy_version: version.map(|version| version.0) };
    let message = coordinator
        .call("get a policy manifest", || {
            let mut client = coordinator.policy();
            async move { client.get_manifest(request).await }
        })
        .await?;
    let origin = Some(PathBuf::from(&message.folder)).filter(|folder| folder.is_absolute());
    Ok(Served { manifest: Manifest::try_from(message)?, origin })
}

/// Downloads a version (default: the latest) into `into/<version>/` and returns its manifest and folder, as [`ensure`]
/// does.
pub async fn fetch(
    coordinator: &Coordinator,
    version: Option<PolicyVersion>,
    into: &Path,
) -> Result<(Manifest, PathBuf), Error> {
    let served = served(coordinator, version).await?;
    let target = into.join(served.manifest.version.0.to_string());
    ensure(coordinator, &served, &target, None).await?;
    Ok((served.manifest, target))
}

/// Verifies the version in `target`; links or downloads it if it is missing or damaged.
///
/// A version of a coordinator on this host is linked if possible. An interrupted transfer continues at its position, also
/// in another process. Chunks are deltas against `base` where that is shorter; a file that arrives damaged is downloaded
/// again in full. There is no deadline while bytes arrive. The folder appears under its name once all checksums match. It
/// is not synced to the disk.
pub async fn ensure(
    coordinator: &Coordinator,
    served: &Served,
    target: &Path,
    base: Option<&LocalBase>,
) -> Result<(), Error> {
    let (sought, folder) = (served.clone(), target.to_owned());
    if blocking(move || Ok::<_, Error>(is_here(&sought, &folder))).await? {
        return Ok(());
    }
    let (manifest, folder) = (served.manifest.clone(), target.to_owned());
    let mut receiver = blocking(move || Receiver::new(manifest, &folder, Durability::Cached)).await?;
    receiver.set_base(base.map(|base| &*base.folder));
    for file in &served.manifest.files {
        fetch_file(coordinator, &mut receiver, &file.name, base).await?;
    }
    blocking(move || receiver.finish()).await
}

/// Returns whether a folder contains the version, after linking it if necessary and possible.
fn is_here(served: &Served, target: &Path) -> bool {
    let Served { manifest, origin } = served;
    if target.is_dir() {
        if manifest.verify(target).is_ok() {
            return true;
        }
        tracing::warn!("{} is damaged: downloading it again", target.display());
    }
    let Some(origin) = origin.as_ref().filter(|origin| origin.is_dir()) else { return false };
    let linked = link::link(manifest, origin, None, target, Durability::Cached);
    if let Err(error) = &linked {
        tracing::debug!("{} cannot be linked: {}", origin.display(), describe(error));
    }
    linked.is_ok()
}

/// Runs work that reads or writes much on a thread for such work.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Error>
where
    Error: From<E>,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(connection::Error::Stopped { what: FETCH }.into()),
    }
}

/// Downloads the missing rest of a file, and the whole file again, without deltas, if it arrives damaged.
async fn fetch_file(
    coordinator: &Coordinator,
    receiver: &mut Receiver,
    name: &str,
    base: Option<&LocalBase>,
) -> Result<(), Error> {
    let (version, content) = (receiver.manifest().version, receiver.manifest().content());
    for attempt in 1.. {
        // A broken stream counts as a missing answer: the next call requests the rest.
        let (progress, cell) = (Progress::default(), tokio::sync::Mutex::new(&mut *receiver));
        let request = v1::FetchRequest {
            policy_version: version.0,
            name: name.to_owned(),
            offset_bytes: 0,
            policy_content: content.to_bytes(),
            arrived_damaged: attempt > 1,
            base: base.filter(|_| attempt == 1).map(|local| local.base.into()),
        };
        let rest = || fetch_rest(coordinator, &cell, &request, &progress);
        match coordinator.transfer(FETCH, &progress, rest).await? {
            Err(receive::Error::Damaged { .. }) if attempt < ATTEMPTS => {}
            outcome => return Ok(outcome?),
        }
    }
    Ok(())
}

/// Downloads the missing rest of the file of a request. The inner error is local to this host and not retried.
async fn fetch_rest(
    coordinator: &Coordinator,
    receiver: &tokio::sync::Mutex<&mut Receiver>,
    request: &v1::FetchRequest,
    progress: &Progress,
) -> Result<Response<Result<(), receive::Error>>, Status> {
    let mut receiver = receiver.lock().await;
    let name = &request.name;
    let offset_bytes = match receiver.received(name) {
        Ok(offset) => offset,
        Err(error) => return Ok(Response::new(Err(error))),
    };
    let request = v1::FetchRequest { offset_bytes, ..request.clone() };
    let mut chunks = coordinator.policy().fetch(request).await?.into_inner();
    while let Some(chunk) = chunks.next().await {
        if let Err(error) = receiver.chunk(name, &chunk?) {
            return Ok(Response::new(Err(error)));
        }
        progress.gained();
    }
    Ok(Response::new(receiver.complete(name)))
}

impl From<durable::Error> for Error {
    fn from(error: durable::Error) -> Self {
        Self::Receive(error.into())
    }
}

impl From<manifest::Error> for Error {
    fn from(error: manifest::Error) -> Self {
        Self::Receive(error.into())
    }
}
