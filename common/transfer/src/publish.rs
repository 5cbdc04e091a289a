//! Publishes a policy version: rank 0 offers it, and sends the bytes that the coordinator does not have.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use podium_files::durable;
use podium_proto::v1::{self, publish_request::Part};
use podium_service::logs::describe;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};

use crate::connection::{self, Coordinator};
use crate::delta::LocalBase;
use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::receive;

/// Number of chunks that are prefetched from the disk.
const READ_AHEAD: usize = 4;
/// Number of uploads that may arrive damaged without a gain in between.
const MOST_DAMAGED: u32 = 3;
/// Bytes per second at which the coordinator's disk links and verifies a version, or better.
const SLOWEST_DISK: u64 = 20 << 20;
/// Interval in which a wait for the coordinator's disk counts as progress.
const TICK: Duration = Duration::from_secs(1);

/// The way in which the coordinator received a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is on this host and shares the files.
    Linked,
    /// Its files were sent.
    Sent,
    /// It has the version already, or does not need it any more.
    Unneeded,
}

/// Publishes the version in `folder` as the rank 0 whose process is `learner_id`.
///
/// Chunks are deltas against `base` if the coordinator has it and where that is shorter; a version that arrives damaged is
/// sent again in full. A broken upload continues after the bytes that the coordinator has received, also in another
/// process. There is no deadline while bytes move. Can be repeated safely. Refused if a committed version of the same
/// number has another content, and with `NOT_FOUND` if `learner_id` is not rank 0 of the current rank group.
///
/// On the coordinator's host the files are linked if possible, so that they must only be replaced, not written to.
pub async fn publish(
    coordinator: &Coordinator,
    learner_id: &str,
    manifest: &Manifest,
    folder: &Path,
    base: Option<&LocalBase>,
) -> Result<Outcome, connection::Error> {
    let origin = std::path::absolute(folder).ok();
    run(coordinator, learner_id, manifest, folder, base, origin.as_deref().and_then(Path::to_str)).await
}

/// Publishes a version like [`publish`], without links.
pub async fn upload(
    coordinator: &Coordinator,
    learner_id: &str,
    manifest: &Manifest,
    folder: &Path,
    base: Option<&LocalBase>,
) -> Result<Outcome, connection::Error> {
    run(coordinator, learner_id, manifest, folder, base, None).await
}

async fn run(
    coordinator: &Coordinator,
    learner_id: &str,
    manifest: &Manifest,
    folder: &Path,
    base: Option<&LocalBase>,
    origin: Option<&str>,
) -> Result<Outcome, connection::Error> {
    let progress = Arc::new(Progress::default());
    let upload = Upload {
        learner_id: learner_id.to_owned(),
        manifest: manifest.clone(),
        folder: folder.to_owned(),
        base: base.cloned(),
        origin: origin.unwrap_or_default().to_owned(),
        progress: progress.clone(),
        most: Arc::default(),
        damaged: Arc::default(),
        was_damaged: Arc::default(),
    };
    let attempt = || upload.attempt(coordinator);
    coordinator.transfer("publish a policy version", &progress, attempt).await
}

/// A version to send.
#[derive(Clone)]
struct Upload {
    learner_id: String,
    manifest: Manifest,
    folder: PathBuf,
    base: Option<LocalBase>,
    /// The folder for links; empty without links.
    origin: String,
    progress: Arc<Progress>,
    /// The most bytes that the coordinator had received before an attempt.
    most: Arc<AtomicU64>,
    /// Number of attempts that arrived damaged since the last gain.
    damaged: Arc<AtomicU32>,
    /// Whether any attempt arrived damaged.
    was_damaged: Arc<AtomicBool>,
}

impl Upload {
    /// Returns the base of deltas. After damage the version is sent in full: the files of the base may have changed.
    fn base(&self) -> Option<&LocalBase> {
        self.base.as_ref().filter(|_| !self.was_damaged.load(Ordering::Relaxed))
    }

    /// Offers the version; a coordinator on this host links and verifies its files meanwhile.
    async fn offer(&self, coordinator: &Coordinator) -> Result<v1::OfferResponse, Status> {
        let mut client = coordinator.policy();
        let manifest = v1::PolicyManifest { folder: self.origin.clone(), ..(&self.manifest).into() };
        let (learner_id, base) = (self.learner_id.clone(), self.base().map(|local| local.base.into()));
        let offer = v1::OfferRequest { learner_id, manifest: Some(manifest), base };
        let bytes: u64 = self.manifest.files.iter().map(|file| file.size_bytes).sum();
        let until = Instant::now() + Duration::from_secs(bytes / SLOWEST_DISK);
        let offered = client.offer(offer);
        tokio::pin!(offered);
        loop {
            tokio::select! {
                answer = &mut offered => return answer.map(Response::into_inner),
                () = tokio::time::sleep(TICK), if Instant::now() < until => self.progress.moved(),
            }
        }
    }

    /// Offers the version and sends the missing bytes.
    async fn attempt(&self, coordinator: &Coordinator) -> Result<Response<Outcome>, Status> {
        let mut client = coordinator.policy();
        let offered = self.offer(coordinator).await?;
        if !offered.wanted {
            return Ok(Response::new(if offered.linked { Outcome::Linked } else { Outcome::Unneeded }));
        }
        let received: HashMap<_, _> =
            offered.received.into_iter().map(|file| (file.name, file.bytes)).collect();
        let total = received.values().sum();
        if self.most.fetch_max(total, Ordering::Relaxed) < total {
            self.progress.gained();
            self.damaged.store(0, Ordering::Relaxed);
            tracing::info!("publishing {} continues after {total} bytes", self.manifest.version);
        }
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let (upload, progress) = (self.clone(), self.progress.clone());
        let base = self.base().filter(|_| offered.has_base).cloned();
        let reading = tokio::task::spawn_blocking(move || upload.send(&received, base.as_ref(), &sender));
        let parts = ReceiverStream::new(receiver).map(move |part| {
            progress.moved();
            part
        });
        let answer = client.publish(parts).await;
        if let Ok(Err(error)) = reading.await {
            return Err(Status::data_loss(describe(&error)));
        }
        let repeated = self.limit_damaged(answer)?.into_inner().repeated_version;
        Ok(Response::new(if repeated { Outcome::Unneeded } else { Outcome::Sent }))
    }

    /// Ends the retries if uploads repeatedly arrive damaged: the files here have changed, or the link damages them.
    fn limit_damaged<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        let is_damaged = |status: &Status| status.code() == Code::Aborted;
        let damaged = answer.as_ref().is_err_and(is_damaged);
        self.was_damaged.fetch_or(damaged, Ordering::Relaxed);
        if damaged && self.damaged.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_DAMAGED {
            return answer
                .map_err(|status| Status::data_loss(format!("{} ({MOST_DAMAGED} times)", status.message())));
        }
        answer
    }

    /// Sends manifest and chunks; ends early, without an error of its own, when the receiver disconnects.
    fn send(
        &self,
        received: &HashMap<String, u64>,
        base: Option<&LocalBase>,
        sender: &mpsc::Sender<v1::PublishRequest>,
    ) -> Result<(), durable::Error> {
        let manifest = v1::PublishRequest {
            learner_id: self.learner_id.clone(),
            base: base.map(|local| local.base.into()),
            part: Some(Part::Manifest((&self.manifest).into())),
        };
        if sender.blocking_send(manifest).is_err() {
            return Ok(());
        }
        for file in &self.manifest.files {
            let path = self.folder.join(&file.name);
            let offset = received.get(&file.name).copied().unwrap_or(0);
            let base = base.map(|base| base.folder.join(&file.name));
            for chunk in receive::chunks(&path, offset, base.as_deref())? {
                let chunk = chunk.map_err(|source| durable::Error::Read { path: path.clone(), source })?;
                let chunk = v1::FileChunk { name: file.name.clone(), chunk: Some(chunk) };
                let part = v1::PublishRequest { part: Some(Part::Chunk(chunk)), ..Default::default() };
                if sender.blocking_send(part).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
