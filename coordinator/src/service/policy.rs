//! The service for policy versions.

use std::sync::Arc;

use podium_grpo::PolicyVersion;
use podium_proto::convert::Error as MessageError;
use podium_proto::v1;
use podium_proto::v1::policy_server::Policy;
use podium_proto::v1::publish_request::Part;
use podium_transfer::Manifest;
use podium_transfer::receive::{self, Receiver};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Context;
use super::codes::{OrRefuse, refuse};
use crate::actor::{self, blocking};
use crate::{metrics, policies};

/// Chunks that are read ahead of the network or the disk.
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
        let manifest = self.0.policies.manifest(version).or_refuse()?;
        Ok(Response::new((&manifest).into()))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let path = self.0.policies.file(PolicyVersion(request.policy_version), &request.name).or_refuse()?;
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        tokio::task::spawn_blocking(move || {
            let chunks = match receive::chunks(&path, request.offset_bytes) {
                Ok(chunks) => chunks,
                Err(error) => {
                    drop(sender.blocking_send(Err(refuse(&error))));
                    return;
                }
            };
            for chunk in chunks {
                let failed = |source| podium_runtime::durable::Error::Read { path: path.clone(), source };
                let chunk = chunk.map_err(failed).or_refuse();
                let (bytes, failed) = (chunk.as_ref().map_or(0, |chunk| chunk.data.len()), chunk.is_err());
                // A receiver that hangs up asks for the rest when it comes back.
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
                metrics::policy_bytes("sent", bytes);
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn publish(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let mut parts = request.into_inner();
        let Some(Part::Manifest(manifest)) = parts.next().await.transpose()?.and_then(|first| first.part)
        else {
            return Err(MessageError::Missing { field: "PublishRequest.manifest" }).or_refuse();
        };
        let manifest = Manifest::try_from(manifest).or_refuse()?;
        // Of two attempts at one version the second waits, and then finds it there.
        let _one_at_a_time = self.0.publishing.lock().await;
        let repeated_version = self.0.policies.is_repeated(&manifest).or_refuse()?;
        if repeated_version {
            // Read to the end: an answer in the middle would look like a broken connection to some clients.
            while parts.next().await.transpose()?.is_some() {}
        } else {
            self.0.handle.check_publish(manifest.version).await.or_refuse()?;
            self.take_in(&manifest, parts).await?;
            self.0.handle.published(manifest).await.or_refuse()?;
        }
        Ok(Response::new(v1::PublishResponse { repeated_version }))
    }
}

impl Service {
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
                    // Writing failed and says why.
                    return Ok(());
                }
            }
            // Only a stream that came to its end may become a version.
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

/// Writes what comes until the end mark; nothing becomes of a stream without one.
fn write(mut receiver: Receiver, mut chunks: Chunks) -> Result<(), receive::Error> {
    while let Some(next) = chunks.blocking_recv() {
        match next {
            Some((name, chunk)) => receiver.chunk(&name, &chunk)?,
            None => return receiver.finish(),
        }
    }
    Ok(())
}
