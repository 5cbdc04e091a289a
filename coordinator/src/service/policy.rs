//! The service for policy versions.

use std::sync::Arc;

use podium_grpo::PolicyVersion;
use podium_proto::convert::{Error as MessageError, uuid};
use podium_proto::v1;
use podium_proto::v1::policy_server::Policy;
use podium_proto::v1::publish_request::Part;
use podium_transfer::Manifest;
use podium_transfer::receive::{self, Receiver};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::codes::{OrRefuse, refuse};
use super::context::Context;
use crate::actor::{self, Offer, blocking};
use crate::{metrics, policies};

/// Number of chunks that are read ahead of the network or the disk.
const CHUNKS_AHEAD: usize = 4;

pub(super) struct Service(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Policy for Service {
    type FetchStream = ReceiverStream<Result<v1::Chunk, Status>>;

    async fn get_manifest(
        &self,
        request: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::PolicyManifest>, Status> {
        let version = request.into_inner().policy_version.map(PolicyVersion);
        let manifest = self.manifest(version).await?;
        Ok(Response::new((&manifest).into()))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let v1::FetchRequest { policy_version, name, offset_bytes } = request.into_inner();
        let manifest = self.manifest(Some(PolicyVersion(policy_version))).await?;
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let policies = self.0.policies.clone();
        tokio::task::spawn_blocking(move || {
            let serving = policies.serve(&manifest, &name, offset_bytes, |chunk| {
                let bytes = chunk.data.len();
                // A receiver that hangs up requests the rest when it reconnects.
                let sent = sender.blocking_send(Ok(chunk)).is_ok();
                if sent {
                    metrics::policy_bytes("sent", bytes);
                }
                sent
            });
            if let Err(error) = serving {
                drop(sender.blocking_send(Err(refuse(&error))));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn offer(&self, request: Request<v1::OfferRequest>) -> Result<Response<v1::OfferResponse>, Status> {
        let v1::OfferRequest { learner_id, manifest } = request.into_inner();
        let learner = uuid("OfferRequest.learner_id", &learner_id).or_refuse()?;
        let manifest =
            manifest.ok_or(MessageError::Missing { field: "OfferRequest.manifest" }).or_refuse()?;
        let manifest = Manifest::try_from(manifest).or_refuse()?;
        let wanted = self.wants(learner, &manifest).await?;
        Ok(Response::new(v1::OfferResponse { wanted }))
    }

    async fn publish(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let mut parts = request.into_inner();
        let Some(v1::PublishRequest { learner_id, part: Some(Part::Manifest(manifest)) }) =
            parts.next().await.transpose()?
        else {
            return Err(MessageError::Missing { field: "PublishRequest.manifest" }).or_refuse();
        };
        let learner = uuid("PublishRequest.learner_id", &learner_id).or_refuse()?;
        let manifest = Manifest::try_from(manifest).or_refuse()?;
        // Of two attempts at one version, the second waits and then finds the version published.
        let _one_at_a_time = self.0.publishing.lock().await;
        let repeated_version = !self.wants(learner, &manifest).await?;
        if repeated_version {
            // Reads to the end, because some clients treat an early reply as a broken connection.
            while parts.next().await.transpose()?.is_some() {}
        } else {
            self.take_in(&manifest, parts).await?;
            self.0.handle.publish(learner, manifest).await.or_refuse()?;
        }
        Ok(Response::new(v1::PublishResponse { repeated_version }))
    }
}

impl Service {
    /// Returns the manifest of a version that can be served, which may have to be restored first.
    async fn manifest(&self, version: Option<PolicyVersion>) -> Result<Manifest, Status> {
        let policies = self.0.policies.clone();
        blocking(move || Ok::<_, actor::Error>(policies.manifest(version)?)).await.or_refuse()
    }

    /// Returns whether the files of a version are needed. Fails if the version is refused.
    async fn wants(&self, learner: Uuid, manifest: &Manifest) -> Result<bool, Status> {
        let version = manifest.version;
        match self.0.handle.offer(learner, manifest.clone()).await.or_refuse()? {
            Offer::New | Offer::Superseding(_) => Ok(true),
            Offer::Unneeded => Ok(false),
            Offer::Published => {
                let policies = self.0.policies.clone();
                blocking(move || Ok::<_, actor::Error>(policies.inspect(version).is_err())).await.or_refuse()
            }
        }
    }

    async fn take_in(
        &self,
        manifest: &Manifest,
        mut parts: Streaming<v1::PublishRequest>,
    ) -> Result<(), Status> {
        let (policies, manifest) = (self.0.policies.clone(), manifest.clone());
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let writing = blocking(move || {
            let receiver =
                policies.receiver(&manifest).map_err(actor::Error::from).map(|to| (to, receiver))?;
            write(receiver.0, receiver.1).map_err(|error| actor::Error::from(policies::Error::from(error)))
        });
        let reading = async {
            while let Some(part) = parts.next().await.transpose()? {
                let Some(Part::Chunk(v1::FileChunk { name, chunk: Some(chunk) })) = part.part else {
                    return Err(MessageError::Missing { field: "PublishRequest.chunk" }).or_refuse();
                };
                metrics::policy_bytes("received", chunk.data.len());
                if sender.send(Some((name, chunk))).await.is_err() {
                    // Writing failed, and its error is returned.
                    return Ok(());
                }
            }
            // Only a complete stream may become a version.
            drop(sender.send(None).await);
            drop(sender);
            Ok(())
        };
        let (written, read) = tokio::join!(writing, reading);
        read?;
        written.or_refuse()
    }
}

type Chunks = mpsc::Receiver<Option<(String, v1::Chunk)>>;

/// Writes chunks until the end mark; a stream without one is discarded.
fn write(mut receiver: Receiver, mut chunks: Chunks) -> Result<(), receive::Error> {
    while let Some(next) = chunks.blocking_recv() {
        match next {
            Some((name, chunk)) => receiver.chunk(&name, &chunk)?,
            None => return receiver.finish(),
        }
    }
    Ok(())
}
