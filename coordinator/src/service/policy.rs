//! The service for policy versions.

use std::path::PathBuf;
use std::sync::Arc;

use podium_grpo::PolicyVersion;
use podium_proto::convert::{Error as MessageError, uuid};
use podium_proto::v1;
use podium_proto::v1::policy_server::Policy;
use podium_service::logs::describe;
use podium_transfer::{Base, Manifest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::codes::{OrRefuse, refuse};
use super::context::Context;
use super::uploads::{Parts, Upload, read_base};
use crate::actor::{self, Offer, blocking};
use crate::metrics;

/// Number of chunks that are read ahead of the network.
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
        let folder = self.0.policies.origin(manifest.version).unwrap_or_default();
        Ok(Response::new(v1::PolicyManifest { folder, ..(&manifest).into() }))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let mut request = request.into_inner();
        let base = read_base(request.base.take())?;
        let manifest = self.manifest(Some(PolicyVersion(request.policy_version))).await?;
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let policies = self.0.policies.clone();
        tokio::task::spawn_blocking(move || {
            let serving = policies.serve(&manifest, &request, base, |chunk| {
                let (kind, bytes) = (metrics::transfer_kind(&chunk), chunk.data.len());
                // A receiver that hangs up requests the rest when it reconnects.
                let sent = sender.blocking_send(Ok(chunk)).is_ok();
                if sent {
                    metrics::policy_bytes("sent", kind, bytes);
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
        let v1::OfferRequest { learner_id, manifest, base } = request.into_inner();
        let learner = uuid("OfferRequest.learner_id", &learner_id).or_refuse()?;
        let manifest =
            manifest.ok_or(MessageError::Missing { field: "OfferRequest.manifest" }).or_refuse()?;
        let origin = PathBuf::from(&manifest.folder);
        let manifest = Manifest::try_from(manifest).or_refuse()?;
        let base = read_base(base)?;
        let service = Self(self.0.clone());
        detached(async move { service.accept(learner, manifest, origin, base).await }).await
    }

    async fn publish(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let (upload, parts) = Parts::open(request.into_inner(), self.0.pause()).await?;
        let service = Self(self.0.clone());
        detached(async move { service.take_in(upload, parts).await }).await
    }
}

/// Runs a call to its end, also if the caller hangs up: a version whose folder is complete is published.
async fn detached<T: Send + 'static>(
    call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
) -> Result<Response<T>, Status> {
    match tokio::spawn(call).await {
        Ok(answer) => answer,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(actor::Error::Stopping).or_refuse(),
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

    /// Answers an offer. A version whose files are on this host is linked and published.
    async fn accept(
        &self,
        learner: Uuid,
        manifest: Manifest,
        origin: PathBuf,
        base: Option<Base>,
    ) -> Result<Response<v1::OfferResponse>, Status> {
        if !self.wants(learner, &manifest).await? {
            return Ok(Response::new(v1::OfferResponse::default()));
        }
        let turn = self.0.uploads.turn(self.0.pause()).await.or_refuse()?;
        // The upload before may just have been published.
        if !self.wants(learner, &manifest).await? {
            return Ok(Response::new(v1::OfferResponse::default()));
        }
        if origin.is_absolute() && origin.is_dir() {
            let (policies, offered) = (self.0.policies.clone(), manifest.clone());
            let link = move || Ok::<_, actor::Error>(policies.link(&offered, &origin)?);
            match blocking(link).await {
                Ok(()) => {
                    self.0.handle.publish(learner, manifest).await.or_refuse()?;
                    return Ok(Response::new(v1::OfferResponse { linked: true, ..Default::default() }));
                }
                Err(error) => tracing::debug!("the files are not linked: {}", describe(&error)),
            }
        }
        let policies = self.0.policies.clone();
        let found = blocking(move || {
            let has_base = base.is_some_and(|base| policies.base(base).is_some());
            Ok::<_, actor::Error>((turn.received(&policies, &manifest)?, has_base))
        });
        let (received, has_base) = found.await.or_refuse()?;
        let received = received.into_iter().map(|(name, bytes)| v1::ReceivedFile { name, bytes }).collect();
        Ok(Response::new(v1::OfferResponse { wanted: true, linked: false, received, has_base }))
    }

    /// Receives an upload and publishes it.
    async fn take_in(
        &self,
        upload: Upload,
        mut parts: Parts,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let Upload { learner, manifest, base } = upload;
        let mut wanted = self.wants(learner, &manifest).await?;
        let turn = self.0.uploads.turn(self.0.pause()).await.or_refuse()?;
        // The upload before may just have been published.
        wanted = wanted && self.wants(learner, &manifest).await?;
        if wanted {
            let _turn = turn.take_in(self.0.policies.clone(), manifest.clone(), base, &mut parts).await?;
            self.0.handle.publish(learner, manifest).await.or_refuse()?;
        } else {
            parts.discard().await?;
        }
        Ok(Response::new(v1::PublishResponse { repeated_version: !wanted }))
    }
}
