//! A relay between a worker and the real coordinator: forwards every call, and may change submissions, so that a real
//! worker behaves like a broken one.

use std::sync::Arc;

use anyhow::Result;
use podium_proto::v1;
use podium_proto::v1::policy_server::{Policy, PolicyServer};
use podium_proto::v1::rollout_server::{Rollout, RolloutServer};
use podium_transfer::{Coordinator, Limits};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::Run;

/// A change of a submission.
type Change = Arc<dyn Fn(&mut v1::SubmitRequest) + Send + Sync>;

/// A relay that serves until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: String,
    _serving: DropGuard,
}

impl Relay {
    /// Serves on a port chosen by the system and forwards calls to the coordinator of `run`.
    pub async fn start(
        run: &Run,
        change: impl Fn(&mut v1::SubmitRequest) + Send + Sync + 'static,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let limits = Limits::of(&podium_config::Network::default());
        let coordinator = Coordinator::new(&run.address()?, limits, stop.clone())?;
        let coordinator = coordinator.with_credentials(run.credentials());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let service = Service { coordinator, change: Arc::new(change) };
        let bytes = limits.max_message_bytes;
        let served = Server::builder()
            .add_service(RolloutServer::new(service.clone()).max_decoding_message_size(bytes))
            .add_service(PolicyServer::new(service))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        tokio::spawn(served);
        Ok(Self { address, _serving: stop.drop_guard() })
    }

    /// host:port, for the worker.
    pub fn address(&self) -> &str {
        &self.address
    }
}

#[derive(Clone)]
struct Service {
    coordinator: Coordinator,
    change: Change,
}

#[tonic::async_trait]
impl Rollout for Service {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        self.coordinator.rollout().register(request.into_inner()).await
    }

    async fn lease(&self, request: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseResponse>, Status> {
        self.coordinator.rollout().lease(request.into_inner()).await
    }

    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let mut request = request.into_inner();
        (self.change)(&mut request);
        self.coordinator.rollout().submit(request).await
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        self.coordinator.rollout().heartbeat(request.into_inner()).await
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        self.coordinator.rollout().leave(request.into_inner()).await
    }
}

#[tonic::async_trait]
impl Policy for Service {
    type FetchStream = Streaming<v1::Chunk>;

    async fn get_manifest(
        &self,
        request: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::PolicyManifest>, Status> {
        self.coordinator.policy().get_manifest(request.into_inner()).await
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.coordinator.policy().fetch(request.into_inner()).await
    }

    async fn offer(&self, _: Request<v1::OfferRequest>) -> Result<Response<v1::OfferResponse>, Status> {
        Err(Status::unimplemented("workers publish nothing"))
    }

    async fn publish(
        &self,
        _: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        Err(Status::unimplemented("workers publish nothing"))
    }
}
