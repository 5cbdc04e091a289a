//! Uploads of policy versions: one at a time, and a newer one ends an older one.
//!
//! A half-open connection of a process that has died must not block the next rank 0. Every offer and every upload of
//! the current rank 0 therefore ends the upload before it, and continues with its bytes if the content is the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podium_grpo::PolicyVersion;
use podium_proto::convert::{Error as MessageError, uuid};
use podium_proto::v1::{self, publish_request::Part};
use podium_transfer::receive::Receiver;
use podium_transfer::{Base, Manifest};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, mpsc};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use super::codes::{OrRefuse, Refusal};
use crate::actor::{self, blocking};
use crate::metrics;
use crate::policies::{self, Policies};

/// Number of chunks that are read ahead of the disk.
const CHUNKS_AHEAD: usize = 4;

/// The reasons why an upload ended before its last byte, or could not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The sender is silent from the beginning.
    #[error("no manifest of a policy version arrived for {} s", limit.as_secs_f64())]
    Silent {
        /// Longest pause.
        limit: Duration,
    },
    /// The sender is silent.
    #[error("no byte of {version} arrived for {} s: the upload has ended, and a new one continues it", limit.as_secs_f64())]
    Stalled {
        /// The version.
        version: PolicyVersion,
        /// Longest pause.
        limit: Duration,
    },
    /// Rank 0 has started another upload.
    #[error("a newer upload replaces this one of {version}")]
    Replaced {
        /// The version.
        version: PolicyVersion,
    },
    /// An earlier upload has all its bytes and is being published.
    #[error("an earlier upload was not published within {} s: the coordinator's disk may be too slow", limit.as_secs_f64())]
    Busy {
        /// Longest wait.
        limit: Duration,
    },
}

impl Refusal for Error {
    fn code(&self) -> Code {
        match self {
            Self::Silent { .. } | Self::Stalled { .. } => Code::DeadlineExceeded,
            Self::Replaced { .. } => Code::Aborted,
            Self::Busy { .. } => Code::Unavailable,
        }
    }
}

/// The upload in progress.
#[derive(Debug, Default)]
pub struct Uploads {
    /// Ends the newest upload.
    newest: Mutex<CancellationToken>,
    /// Held by the upload in progress; contains the received part of the last one if it broke.
    part: Arc<AsyncMutex<Option<Receiver>>>,
}

/// The turn of an upload. No other upload writes while it exists.
#[derive(Debug)]
pub(super) struct Turn {
    part: OwnedMutexGuard<Option<Receiver>>,
    /// Cancelled when a newer upload begins.
    ended: CancellationToken,
}

impl Uploads {
    /// Ends the upload in progress and waits until it does not write any more. An upload whose bytes have all arrived
    /// is published first.
    pub(super) async fn turn(&self, limit: Duration) -> Result<Turn, Error> {
        let ended = CancellationToken::new();
        self.replace_newest(ended.clone()).cancel();
        let part = timeout(limit, self.part.clone().lock_owned()).await;
        Ok(Turn { part: part.map_err(|_| Error::Busy { limit })?, ended })
    }

    fn replace_newest(&self, ended: CancellationToken) -> CancellationToken {
        std::mem::replace(&mut *self.newest.lock().unwrap_or_else(PoisonError::into_inner), ended)
    }
}

impl Turn {
    /// Returns the received bytes of each file of a version. Reads lengths from the disk.
    pub(super) fn received(
        &self,
        policies: &Policies,
        manifest: &Manifest,
    ) -> Result<Vec<(String, u64)>, policies::Error> {
        let part = self.part.as_ref().filter(|part| part.continues(manifest));
        let Some(part) = part else { return policies.received(manifest) };
        let received =
            |file: &podium_transfer::manifest::File| Ok((file.name.clone(), part.received(&file.name)?));
        manifest.files.iter().map(received).collect()
    }

    /// Receives the rest of a version and publishes its folder. A broken upload remains for the next turn.
    pub(super) async fn take_in(
        self,
        policies: Arc<Policies>,
        manifest: Manifest,
        base: Option<Base>,
        parts: &mut Parts,
    ) -> Result<Self, Status> {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let ended = self.ended.clone();
        let writing =
            blocking(move || Ok::<_, actor::Error>(self.write(&policies, &manifest, base, receiver)?));
        let reading = parts.forward(&ended, sender);
        let (written, read) = tokio::join!(writing, reading);
        read?;
        written.or_refuse()
    }

    /// Writes chunks until the end mark; without one the upload is broken.
    fn write(
        mut self,
        policies: &Policies,
        manifest: &Manifest,
        base: Option<Base>,
        mut chunks: mpsc::Receiver<Option<(String, v1::Chunk)>>,
    ) -> Result<Self, policies::Error> {
        let before = self.part.take().filter(|part| part.continues(manifest));
        let mut part = before.map_or_else(|| policies.receiver(manifest), Ok)?;
        let base = base.and_then(|base| policies.base(base));
        part.set_base(base.as_deref());
        while let Some(next) = chunks.blocking_recv() {
            let Some((name, chunk)) = next else {
                part.finish()?;
                return Ok(self);
            };
            if let Err(error) = part.chunk(&name, &chunk) {
                *self.part = Some(part);
                return Err(error.into());
            }
        }
        *self.part = Some(part);
        Ok(self)
    }
}

/// The beginning of an upload.
pub(super) struct Upload {
    pub(super) learner: Uuid,
    pub(super) manifest: Manifest,
    /// The version that deltas refer to.
    pub(super) base: Option<Base>,
}

/// Reads the base of a message.
pub(super) fn read_base(base: Option<v1::PolicyBase>) -> Result<Option<Base>, Status> {
    base.map(Base::try_from).transpose().or_refuse()
}

/// The stream of an upload, after its manifest.
pub(super) struct Parts {
    stream: Streaming<v1::PublishRequest>,
    version: PolicyVersion,
    /// Longest pause between two parts.
    limit: Duration,
}

impl Parts {
    /// Reads the beginning of a stream.
    pub(super) async fn open(
        mut stream: Streaming<v1::PublishRequest>,
        limit: Duration,
    ) -> Result<(Upload, Self), Status> {
        let first = timeout(limit, stream.next()).await.map_err(|_| Error::Silent { limit }).or_refuse()?;
        let Some(v1::PublishRequest { learner_id, base, part: Some(Part::Manifest(manifest)) }) =
            first.transpose()?
        else {
            return Err(MessageError::Missing { field: "PublishRequest.manifest" }).or_refuse();
        };
        let learner = uuid("PublishRequest.learner_id", &learner_id).or_refuse()?;
        let manifest = Manifest::try_from(manifest).or_refuse()?;
        let base = read_base(base)?;
        let version = manifest.version;
        Ok((Upload { learner, manifest, base }, Self { stream, version, limit }))
    }

    /// Passes chunks on, and the end mark after the last one: only a complete stream may become a version.
    async fn forward(
        &mut self,
        ended: &CancellationToken,
        sender: mpsc::Sender<Option<(String, v1::Chunk)>>,
    ) -> Result<(), Status> {
        let version = self.version;
        let all = async {
            while let Some(part) = self.next().await? {
                let Some(Part::Chunk(v1::FileChunk { name, chunk: Some(chunk) })) = part.part else {
                    return Err(MessageError::Missing { field: "PublishRequest.chunk" }).or_refuse();
                };
                metrics::policy_bytes("received", metrics::transfer_kind(&chunk), chunk.data.len());
                if sender.send(Some((name, chunk))).await.is_err() {
                    // Writing failed, and its error is returned.
                    return Ok(());
                }
            }
            drop(sender.send(None).await);
            Ok(())
        };
        tokio::select! {
            biased;
            outcome = all => outcome,
            () = ended.cancelled() => Err(Error::Replaced { version }).or_refuse(),
        }
    }

    /// Reads to the end, because some clients treat an early reply as a broken connection.
    pub(super) async fn discard(&mut self) -> Result<(), Status> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Returns the next part; `None` at the end.
    async fn next(&mut self) -> Result<Option<v1::PublishRequest>, Status> {
        let (version, limit) = (self.version, self.limit);
        let next = timeout(limit, self.stream.next()).await;
        next.map_err(|_| Error::Stalled { version, limit }).or_refuse()?.transpose()
    }
}
