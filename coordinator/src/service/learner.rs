//! The service for learner ranks.

use std::sync::Arc;
use std::time::Instant;

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::{self, uuid};
use podium_proto::v1;
use podium_proto::v1::batch_part::Part;
use podium_proto::v1::learner_server::Learner;
use podium_service::advertise;
use podium_service::plain_text::{self, MAX_NAME_BYTES};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::codes::{OrRefuse, refuse};
use super::context::{Context, over, scraped_at};

use crate::actor::{BatchRequest, StepReport};
use crate::machine::sequencer::{Report, Unusable};
use crate::machine::{self, BatchReply, Join};
use crate::store::Store;
use crate::timeline::Activity;

/// Maximum number of parts that wait for the network.
const PARTS_AHEAD: usize = 8;

/// Maximum number of metrics in a rank's report of a step.
const MAX_METRICS: usize = 1_000;

/// Size of an NCCL unique id, in bytes.
const NCCL_ID_BYTES: usize = 128;

/// Maximum size of a code version in bytes; the rest is cut off.
const MAX_VERSION: usize = 80;

/// Maximum size of a rank's reason in bytes; the rest is cut off.
const MAX_REASON: usize = 500;

pub(super) struct Service(pub(super) Arc<Context>);

type Parts = mpsc::Sender<Result<v1::BatchPart, Status>>;

#[tonic::async_trait]
impl Learner for Service {
    type NextBatchStream = ReceiverStream<Result<v1::BatchPart, Status>>;

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let peer = request.remote_addr().map(|peer| peer.ip());
        let request = request.into_inner();
        let learner = uuid("JoinRequest.learner_id", &request.learner_id).or_refuse()?;
        let identity = &self.0.identity;
        identity.check(request.protocol, &request.run_hash, &request.model_fingerprint).or_refuse()?;
        let join = Join {
            learner,
            rank: request.rank,
            world_size: request.world_size,
            address: collective_address(request.collective_address).or_refuse()?,
            next_step: request.next_step,
            code_version: plain_text::limited(&request.code_version, MAX_VERSION),
            metrics_address: scraped_at("a rank", &request.metrics_address, peer),
            nccl: request.nccl,
            nccl_id: nccl_id(request.nccl_id).or_refuse()?,
        };
        let reason = plain_text::limited(&request.reason, MAX_REASON);
        let deadline = self.0.deadline(request.wait_ms);
        let rendezvous = self
            .0
            .poll(
                deadline,
                || self.0.handle.join(join.clone(), reason.clone()),
                |rendezvous| rendezvous.complete,
            )
            .await
            .or_refuse()?;
        Ok(Response::new(v1::JoinResponse {
            run_id: identity.run_id.to_string(),
            complete: rendezvous.complete,
            collective_address: rendezvous.address,
            generation: rendezvous.epoch,
            nccl_id: rendezvous.nccl_id,
            ranks_without_nccl: rendezvous.ranks_without_nccl,
            dropped_versions: self.0.dropped_versions.clone(),
        }))
    }

    async fn next_batch(
        &self,
        request: Request<v1::NextBatchRequest>,
    ) -> Result<Response<Self::NextBatchStream>, Status> {
        let request = request.into_inner();
        let learner = uuid("NextBatchRequest.learner_id", &request.learner_id).or_refuse()?;
        let (rank, step) = (request.rank, Step(request.step));
        let lost = request.lost_versions.into_iter().map(PolicyVersion).collect();
        let batch = BatchRequest { rank, learner, step, lost };
        let deadline = self.0.deadline(request.wait_ms);
        let mut asked = Instant::now();
        let ask = || {
            asked = Instant::now();
            self.0.handle.batch(batch.clone())
        };
        let reply = self.0.poll(deadline, ask, |reply| *reply != BatchReply::NotReady).await.or_refuse()?;
        let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
        let single = match reply {
            BatchReply::Ready { world_size } => {
                let context = self.0.clone();
                tokio::task::spawn_blocking(move || {
                    send_share(&context.store, step, rank, world_size, &sender);
                    context.timeline.record(Activity::Batch, asked);
                });
                return Ok(Response::new(ReceiverStream::new(receiver)));
            }
            BatchReply::NotReady => Part::NotReady(v1::Idle {}),
            BatchReply::Rejoin => Part::Rejoin(v1::Rejoin {}),
            BatchReply::Republish { version, first_step } => {
                Part::Republish(v1::Republish { policy_version: version.0, first_step: first_step.0 })
            }
            BatchReply::RunOver(reason) => Part::RunOver(over(reason)),
        };
        // The channel is empty and its receiver is in scope, so sending succeeds.
        drop(sender.try_send(Ok(v1::BatchPart { part: Some(single) })));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn commit_step(
        &self,
        request: Request<v1::CommitStepRequest>,
    ) -> Result<Response<v1::CommitStepResponse>, Status> {
        let request = request.into_inner();
        let learner = uuid("CommitStepRequest.learner_id", &request.learner_id).or_refuse()?;
        let step = Step(request.step);
        self.0.timeline.reported(&request.activities);
        check_metrics(request.metrics.keys()).or_refuse()?;
        let checkpoint = request.checkpoint_step.map(Step);
        if let Some(checkpoint) = checkpoint.filter(|&checkpoint| checkpoint.0 > step.0.saturating_add(1)) {
            return Err(machine::Error::StepAhead { step: checkpoint, committed: step }).or_refuse();
        }
        let report = StepReport { learner, step, metrics: request.metrics, checkpoint };
        let run_over = self.0.handle.commit(report).await.or_refuse()?;
        Ok(Response::new(v1::CommitStepResponse { run_over }))
    }

    async fn set_aside(
        &self,
        request: Request<v1::SetAsideRequest>,
    ) -> Result<Response<v1::SetAsideResponse>, Status> {
        let request = request.into_inner();
        let groups = request.groups.into_iter().map(|group| Unusable {
            index: group.index,
            attempt: group.attempt,
            cause: plain_text::limited(&group.cause, MAX_REASON),
        });
        let report = Report {
            learner: uuid("SetAsideRequest.learner_id", &request.learner_id).or_refuse()?,
            id: uuid("SetAsideRequest.report_id", &request.report_id).or_refuse()?,
            step: Step(request.step),
            groups: groups.collect(),
        };
        self.0.handle.set_aside(report).await.or_refuse()?;
        Ok(Response::new(v1::SetAsideResponse {}))
    }

    async fn fail(&self, request: Request<v1::FailRequest>) -> Result<Response<v1::FailResponse>, Status> {
        let request = request.into_inner();
        let learner = uuid("FailRequest.learner_id", &request.learner_id).or_refuse()?;
        let kind = failure_name(request.failure());
        let reason = plain_text::limited(&request.reason, MAX_REASON);
        self.0.handle.fail(learner, kind, reason).await.or_refuse()?;
        Ok(Response::new(v1::FailResponse {}))
    }

    async fn alive(&self, request: Request<v1::AliveRequest>) -> Result<Response<v1::AliveResponse>, Status> {
        let learner = uuid("AliveRequest.learner_id", &request.into_inner().learner_id).or_refuse()?;
        self.0.handle.alive(learner).await.or_refuse()?;
        Ok(Response::new(v1::AliveResponse {}))
    }
}

/// Returns a failure's name in metrics.
const fn failure_name(failure: v1::Failure) -> &'static str {
    match failure {
        v1::Failure::NotFinite => "not_finite",
        v1::Failure::OutOfMemory => "out_of_memory",
        v1::Failure::Collective => "collective",
        v1::Failure::Unspecified => "other",
    }
}

/// Validates the number of metrics and their names, which `podium status` and `metrics.jsonl` show.
fn check_metrics<'a>(mut names: impl ExactSizeIterator<Item = &'a String>) -> Result<(), convert::Error> {
    let invalid = |value, expected| {
        Err(convert::Error::Invalid { field: "CommitStepRequest.metrics", value, expected })
    };
    if names.len() > MAX_METRICS {
        return invalid(format!("{} metrics", names.len()), "at most 1000");
    }
    match names.find(|name| plain_text::name(name) != **name) {
        Some(name) => invalid(
            format!("{:?}", plain_text::limited(name, 80)),
            "names of at most 256 bytes without control characters",
        ),
        None => Ok(()),
    }
}

/// Validates rank 0's address for the other ranks, which other ranks leave empty.
fn collective_address(address: String) -> Result<String, convert::Error> {
    let is_host = |host: &str| !host.is_empty() && !host.contains(char::is_whitespace);
    let is_address = advertise::split(&address)
        .is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_plain = address.len() <= MAX_NAME_BYTES && plain_text::escaped(&address) == address;
    if address.is_empty() || (is_address && is_plain) {
        return Ok(address);
    }
    let value = format!("{:?}", plain_text::limited(&address, 80));
    let expected = "host:port of at most 256 bytes, or none";
    Err(convert::Error::Invalid { field: "JoinRequest.collective_address", value, expected })
}

/// Validates rank 0's unique id, which may be empty.
fn nccl_id(id: Vec<u8>) -> Result<Vec<u8>, convert::Error> {
    if id.is_empty() || id.len() == NCCL_ID_BYTES {
        return Ok(id);
    }
    Err(convert::Error::Invalid {
        field: "JoinRequest.nccl_id",
        value: format!("{} bytes", id.len()),
        expected: "128 bytes, or none",
    })
}

/// Sends a rank's share: the header, then every group whose index modulo the number of ranks is the rank.
fn send_share(store: &Store, step: Step, rank: u32, world_size: u32, parts: &Parts) {
    let send = |part| parts.blocking_send(Ok(v1::BatchPart { part: Some(part) })).is_ok();
    let groups = match store.groups(step) {
        Ok(groups) => groups,
        Err(error) => {
            drop(parts.blocking_send(Err(refuse(&error))));
            return;
        }
    };
    let tokens =
        |group: &v1::ScoredGroup| group.completions.iter().map(|one| one.token_ids.len() as u64).sum::<u64>();
    let mine = |group: &v1::ScoredGroup| group.index % world_size == rank;
    let header = v1::BatchHeader {
        step: step.0,
        groups: groups.iter().filter(|group| mine(group)).count() as u32,
        groups_in_step: groups.len() as u32,
        tokens_in_step: groups.iter().map(tokens).sum(),
        step_rewards: groups
            .iter()
            .map(|group| v1::GroupRewards { rewards: group.rewards.clone() })
            .collect(),
    };
    // A rank that hangs up repeats its request.
    let _sent =
        send(Part::Header(header)) && groups.into_iter().filter(mine).all(|group| send(Part::Group(group)));
}
