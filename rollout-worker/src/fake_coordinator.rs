//! A coordinator for tests: real gRPC over a real socket, scripted answers, recorded requests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use podium_grpo::PolicyVersion;
use podium_proto::v1::lease_response::Answer;
use podium_proto::v1::policy_server::{Policy, PolicyServer};
use podium_proto::v1::rollout_server::{Rollout, RolloutServer};
use podium_proto::v1::{self};
use podium_transfer::{Coordinator, Limits, manifest, receive};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::source::Source;

/// Longer than any wait of a test.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Scripted answers and recorded requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) run_id: Uuid,
    pub(crate) run_hash: String,
    /// The folder of each policy version.
    pub(crate) policies: BTreeMap<u64, PathBuf>,
    /// Answers in this order.
    pub(crate) answers: VecDeque<Answer>,
    /// Leases that heartbeats report as lost.
    pub(crate) lost: Vec<String>,
    /// Workers registered since the coordinator's start.
    pub(crate) known: BTreeSet<String>,
    pub(crate) registered: Vec<v1::RegisterRequest>,
    pub(crate) heartbeats: Vec<v1::HeartbeatRequest>,
    /// Number of submissions that are answered as pending.
    pub(crate) pending: usize,
    pub(crate) submitted: Vec<v1::SubmitRequest>,
    pub(crate) left: Vec<String>,
    /// Names of downloaded files, with their version.
    pub(crate) fetched: Vec<(u64, String)>,
}

/// A handle to the state, which outlives the server.
#[derive(Debug, Clone)]
pub(crate) struct FakeCoordinator {
    state: watch::Sender<State>,
}

/// Serves until it is dropped, which cuts every connection like a crash.
pub(crate) struct Server {
    runtime: Option<Runtime>,
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Waits, so that the port is free; on a separate thread, since a test's runtime must not block.
        let runtime = self.runtime.take();
        let end = move || runtime.into_iter().for_each(|runtime| runtime.shutdown_timeout(LONG));
        std::thread::spawn(end).join().unwrap();
    }
}

impl FakeCoordinator {
    pub(crate) fn new() -> Self {
        let (run_id, run_hash) = (Uuid::from_u128(77), "cafe".to_owned());
        Self { state: watch::Sender::new(State { run_id, run_hash, ..State::default() }) }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Returns the version of a lease, with the present content of its folder.
    pub(crate) fn source(&self, version: u64) -> Source {
        let State { policies, run_hash, .. } = self.state();
        let manifest = manifest::describe(&policies[&version], PolicyVersion(version), &run_hash, "f00d");
        Source { version: PolicyVersion(version), content: Some(manifest.unwrap().content()) }
    }

    /// Waits until `holds` returns true.
    pub(crate) async fn until(&self, holds: impl Fn(&State) -> bool) -> State {
        let mut state = self.state.subscribe();
        timeout(LONG, state.wait_for(holds)).await.expect("the state is reached in time").unwrap().clone()
    }

    /// Starts to serve on `address` ("127.0.0.1:0": any port). No worker is registered yet.
    pub(crate) async fn serve(&self, address: &str) -> Server {
        self.change(|state| state.known.clear());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (fake, address) = (self.clone(), address.to_owned());
        let bound = runtime.spawn(async move {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let server = tonic::transport::Server::builder()
                .add_service(RolloutServer::new(fake.clone()))
                .add_service(PolicyServer::new(fake));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            address
        });
        let address = bound.await.unwrap();
        Server { runtime: Some(runtime), address }
    }

    fn check_known(&self, worker_id: &str) -> Result<(), Status> {
        if self.state.borrow().known.contains(worker_id) {
            return Ok(());
        }
        Err(Status::not_found("unknown worker id: register first"))
    }
}

/// A connection with short limits.
pub(crate) fn connect(address: &str) -> Coordinator {
    let limits = Limits {
        request_timeout: Duration::from_secs(10),
        reconnect_for: Duration::from_secs(30),
        max_message_bytes: 1 << 20,
    };
    Coordinator::new(address, limits, CancellationToken::new()).unwrap()
}

#[tonic::async_trait]
impl Rollout for FakeCoordinator {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let request = request.into_inner();
        if request.run_hash != self.state.borrow().run_hash {
            return Err(Status::failed_precondition("this worker is of another run"));
        }
        self.change(|state| {
            state.known.insert(request.worker_id.clone());
            state.registered.push(request);
        });
        let run_id = self.state.borrow().run_id.to_string();
        Ok(Response::new(v1::RegisterResponse { run_id, heartbeat_interval_ms: 10 }))
    }

    async fn lease(&self, request: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseResponse>, Status> {
        let request = request.into_inner();
        self.check_known(&request.worker_id)?;
        let mut state = self.state.subscribe();
        let wait = Duration::from_millis(request.wait_ms);
        // The queue below shows whether an answer arrived.
        let _ = timeout(wait, state.wait_for(|state| !state.answers.is_empty())).await;
        drop(state);
        let mut answer = None;
        self.change(|state| answer = state.answers.pop_front());
        Ok(Response::new(v1::LeaseResponse { answer: Some(answer.unwrap_or(Answer::Idle(v1::Idle {}))) }))
    }

    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let request = request.into_inner();
        self.check_known(&request.worker_id)?;
        let accepted = request.results.len() as u32;
        let pending = self.state.borrow().pending > 0;
        if pending {
            self.change(|state| state.pending -= 1);
            return Ok(Response::new(v1::SubmitResponse { pending, ..Default::default() }));
        }
        self.change(|state| state.submitted.push(request));
        Ok(Response::new(v1::SubmitResponse { accepted, ..Default::default() }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let known = self.check_known(&request.worker_id).is_ok();
        let lost_lease_ids = self.state.borrow().lost.clone();
        self.change(|state| state.heartbeats.push(request));
        Ok(Response::new(v1::HeartbeatResponse { lost_lease_ids, known }))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        self.change(|state| state.left.push(request.into_inner().worker_id));
        Ok(Response::new(v1::LeaveResponse {}))
    }
}

#[tonic::async_trait]
impl Policy for FakeCoordinator {
    async fn get_manifest(
        &self,
        request: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::PolicyManifest>, Status> {
        let State { policies, run_hash, .. } = self.state();
        let version = request.into_inner().policy_version;
        let version = version.or(policies.keys().max().copied());
        let found = version.and_then(|version| Some((version, policies.get(&version)?)));
        let (version, folder) = found.ok_or_else(|| Status::not_found("no such policy version"))?;
        let manifest = manifest::describe(folder, PolicyVersion(version), &run_hash, "f00d").unwrap();
        Ok(Response::new((&manifest).into()))
    }

    type FetchStream = Pin<Box<dyn Stream<Item = Result<v1::Chunk, Status>> + Send>>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let path = self.state.borrow().policies[&request.policy_version].join(&request.name);
        self.change(|state| state.fetched.push((request.policy_version, request.name)));
        let chunks = receive::chunks(&path, request.offset_bytes, None).unwrap();
        let chunks = chunks.map(|chunk| chunk.map_err(Status::from));
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
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
