//! A coordinator without workers: it synthesizes the groups of each step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use podium_grpo::{Completion, FinishReason, Group, GroupId, PolicyVersion, Step};
use podium_proto::v1::{self, batch_part::Part, learner_server, policy_server, publish_request};
use podium_transfer::{manifest, receive};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

/// Steps of the run.
pub(crate) const STEPS: u64 = 5;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The injected faults.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan {
    /// Once, learners are shut down when this step is committed.
    pub(crate) stop_after: Option<u64>,
    /// Once, rank 0 must rejoin when it requests this step.
    pub(crate) rejoin_at: Option<u64>,
    /// This version does not arrive until the coordinator returns, and learners are shut down.
    pub(crate) gone_at: Option<u64>,
}

/// A running coordinator; it ends when dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _server: DropGuard,
}

struct Shared {
    start: PathBuf,
    run_hash: String,
    world_size: u32,
    state: Mutex<State>,
    generation: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    stop: CancellationToken,
    /// Ranks that wait for the others, and rank 0's address.
    joined: BTreeSet<u32>,
    collective_address: String,
    commits: Vec<v1::CommitStepRequest>,
    /// Weights of each version.
    versions: BTreeMap<u64, Vec<u8>>,
}

impl Fake {
    /// Serves the policy in `start` as version 0.
    pub(crate) async fn start(start: &Path, run_hash: &str, world_size: u32, plan: Plan) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            start: start.to_owned(),
            run_hash: run_hash.to_owned(),
            world_size,
            state: Mutex::new(State { plan, ..State::default() }),
            generation: watch::Sender::new(0),
        });
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder()
            .add_service(learner_server::LearnerServer::from_arc(shared.clone()))
            .add_service(policy_server::PolicyServer::from_arc(shared.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        tokio::spawn(server);
        Self { address, shared, _server: stop.drop_guard() }
    }

    /// Cancelled according to the plan.
    pub(crate) fn stop_learners(&self) -> CancellationToken {
        self.shared.state.lock().unwrap().stop.clone()
    }

    /// The coordinator returns, and so do learners.
    pub(crate) fn come_back(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.plan.gone_at = None;
        state.stop = CancellationToken::new();
    }

    pub(crate) fn commits(&self) -> Vec<v1::CommitStepRequest> {
        self.shared
            .state
            .lock()
            .unwrap()
            .commits
            .iter()
            .filter(|commit| !commit.metrics.is_empty())
            .cloned()
            .collect()
    }

    pub(crate) fn versions(&self) -> BTreeMap<u64, Vec<u8>> {
        self.shared.state.lock().unwrap().versions.clone()
    }

    /// Number of rendezvous.
    pub(crate) fn generation(&self) -> u64 {
        *self.shared.generation.borrow()
    }
}

/// Four groups of three completions.
fn groups(step: u64) -> Vec<Group> {
    let token = |seed: u64| (seed * 7 + step * 3) as u32 % 23;
    let group = |index: u64| {
        let completion = |sample: u64| {
            let length = 1 + (index + sample + step) % 4;
            Completion {
                token_ids: (0..length).map(|position| token(index * 31 + sample * 11 + position)).collect(),
                text: String::new(),
                text_ends: vec![0; length as usize],
                logprobs: vec![-3.0; length as usize],
                sampled_logprobs: None,
                allowed: vec![],
                finish_reason: FinishReason::Stop,
            }
        };
        Group {
            id: GroupId::first(Step(step), index as u32),
            policy_version: PolicyVersion(step),
            prompt_ids: (0..3 + index % 2).map(token).collect(),
            completions: (0..3).map(completion).collect(),
            reward_terms: vec![],
            term_rewards: vec![vec![]; 3],
            rewards: (0..3).map(|sample| Some(((sample + index + step) % 3) as f64)).collect(),
            rank_credits: vec![vec![]; 3],
        }
    };
    (0..4).map(group).collect()
}

#[tonic::async_trait]
impl learner_server::Learner for Shared {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let request = request.into_inner();
        if request.run_hash != self.run_hash {
            return Err(Status::failed_precondition(self.run_hash.clone()));
        }
        let mut generation = self.generation.subscribe();
        let before = *generation.borrow();
        {
            let mut state = self.state.lock().unwrap();
            state.joined.insert(request.rank);
            if request.rank == 0 {
                state.collective_address = request.collective_address;
            }
            if state.joined.len() == self.world_size as usize {
                state.joined.clear();
                self.generation.send_modify(|generation| *generation += 1);
            }
        }
        let generation = *generation.wait_for(|now| *now > before).await.unwrap();
        let collective_address = self.state.lock().unwrap().collective_address.clone();
        Ok(Response::new(v1::JoinResponse {
            run_id: String::new(),
            complete: true,
            collective_address,
            generation,
            ..v1::JoinResponse::default()
        }))
    }

    type NextBatchStream = Answers<v1::BatchPart>;

    async fn next_batch(
        &self,
        request: Request<v1::NextBatchRequest>,
    ) -> Result<Response<Self::NextBatchStream>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let parts = if request.rank == 0 && state.plan.rejoin_at == Some(request.step) {
            state.plan.rejoin_at = None;
            vec![Part::Rejoin(v1::Rejoin {})]
        } else if request.step == STEPS {
            vec![Part::RunOver(v1::RunOver { reason: "all steps are done".into() })]
        } else {
            let all = groups(request.step);
            let tokens =
                all.iter().flat_map(|group| &group.completions).map(|completion| completion.len() as u64);
            let step_rewards = all.iter().map(v1::GroupRewards::from).collect();
            let (groups_in_step, tokens_in_step) = (all.len() as u32, tokens.sum());
            let own: Vec<_> =
                all.into_iter().filter(|group| group.id.index % self.world_size == request.rank).collect();
            let header = v1::BatchHeader {
                step: request.step,
                groups: own.len() as u32,
                groups_in_step,
                tokens_in_step,
                step_rewards,
            };
            let groups = own.into_iter().map(|group| Part::Group(group.into()));
            std::iter::once(Part::Header(header)).chain(groups).collect()
        };
        let parts = parts.into_iter().map(|part| Ok(v1::BatchPart { part: Some(part) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(parts.collect::<Vec<_>>()))))
    }

    async fn set_aside(
        &self,
        request: Request<v1::SetAsideRequest>,
    ) -> Result<Response<v1::SetAsideResponse>, Status> {
        Err(Status::failed_precondition(format!("nothing is set aside here: {:?}", request.into_inner())))
    }

    async fn alive(&self, _: Request<v1::AliveRequest>) -> Result<Response<v1::AliveResponse>, Status> {
        Ok(Response::new(v1::AliveResponse {}))
    }

    async fn fail(&self, _: Request<v1::FailRequest>) -> Result<Response<v1::FailResponse>, Status> {
        Ok(Response::new(v1::FailResponse {}))
    }

    async fn commit_step(
        &self,
        request: Request<v1::CommitStepRequest>,
    ) -> Result<Response<v1::CommitStepResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        if state.plan.stop_after == Some(request.step) {
            state.plan.stop_after = None;
            std::mem::take(&mut state.stop).cancel();
        }
        state.commits.push(request);
        Ok(Response::new(v1::CommitStepResponse { run_over: false }))
    }
}

#[tonic::async_trait]
impl policy_server::Policy for Shared {
    async fn get_manifest(
        &self,
        request: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::PolicyManifest>, Status> {
        let version = request.into_inner().policy_version.unwrap();
        if version > 0 && !self.state.lock().unwrap().versions.contains_key(&version) {
            return Err(Status::not_found("no such version"));
        }
        let fingerprint = manifest::fingerprint(&self.start).unwrap();
        let manifest =
            manifest::describe(&self.start, PolicyVersion(version), &self.run_hash, &fingerprint).unwrap();
        Ok(Response::new((&manifest).into()))
    }

    type FetchStream = Answers<v1::Chunk>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let chunks = receive::chunks(&self.start.join(&request.name), request.offset_bytes, None).unwrap();
        let chunks: Vec<_> = chunks.map(|chunk| Ok(chunk.unwrap())).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn offer(&self, _: Request<v1::OfferRequest>) -> Result<Response<v1::OfferResponse>, Status> {
        Ok(Response::new(v1::OfferResponse { wanted: true, ..v1::OfferResponse::default() }))
    }

    async fn publish(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let mut parts = request.into_inner();
        let (mut version, mut weights) = (0, Vec::new());
        while let Some(part) = parts.next().await {
            match part?.part.unwrap() {
                publish_request::Part::Manifest(manifest) => version = manifest.policy_version,
                publish_request::Part::Chunk(chunk) if chunk.name == "model.safetensors" => {
                    weights.extend(chunk.chunk.unwrap().data);
                }
                publish_request::Part::Chunk(_) => {}
            }
        }
        let mut state = self.state.lock().unwrap();
        if state.plan.gone_at == Some(version) {
            state.stop.cancel();
            return Err(Status::unavailable("away"));
        }
        let known = state.versions.insert(version, weights.clone());
        assert!(
            known.as_ref().is_none_or(|known| *known == weights),
            "version {version} came with other weights"
        );
        Ok(Response::new(v1::PublishResponse { repeated_version: known.is_some() }))
    }
}
