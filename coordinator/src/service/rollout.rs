//! The service for rollout workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use podium_grpo::PolicyVersion;
use podium_proto::convert::{self, Slot, SlotResult, uuid};
use podium_proto::v1;
use podium_proto::v1::lease_response::Answer;
use podium_proto::v1::rollout_server::Rollout;
use podium_service::logs::describe;
use podium_service::plain_text;
use podium_transfer::Content;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::codes::{OrRefuse, Refusal};
use super::context::{Context, over, scraped_at};

use crate::actor::{self, Offender, Profile, Submission};
use crate::curriculum::{choices, messages};
use crate::grading::{self, Checked, check, grade};
use crate::machine::sequencer::Counts;
use crate::machine::{self, Lease, LeaseId, LeaseReply, Verdict};
use crate::timeline::Activity;
use crate::{metrics, policies};

/// Time limit for the outcome of a submission after the server stops; other calls have longer.
const LAST_OUTCOMES: Duration = Duration::from_secs(2);

pub(super) struct Service(pub(super) Arc<Context>);

/// The reasons why submitted results are invalid.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// A message is invalid.
    #[error("{slot}")]
    Message {
        /// The slot of the message.
        slot: Slot,
        source: convert::Error,
    },
    /// A message does not contain its slot.
    #[error(transparent)]
    Slot(convert::Error),
    /// The results do not match the request.
    #[error(transparent)]
    Grading(#[from] grading::Error),
}

/// Unusable results, and the worker that submitted them.
#[derive(Debug, thiserror::Error)]
#[error("{offender}: {}", describe(fault))]
struct Offence {
    offender: Offender,
    fault: Fault,
}

impl Refusal for Offence {
    fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Converts messages to results and validates them.
fn checked(messages: Vec<v1::TaskResult>) -> Result<Vec<SlotResult>, Fault> {
    let result = |message: v1::TaskResult| {
        let slot = Slot::try_from(&message).map_err(Fault::Slot)?;
        SlotResult::try_from(message).map_err(|source| Fault::Message { slot, source })
    };
    messages.into_iter().map(result).collect()
}

fn is_training(result: &v1::TaskResult) -> bool {
    matches!(result.purpose, Some(v1::task_result::Purpose::Training(_)))
}

impl Service {
    fn lease_name(&self, id: LeaseId) -> String {
        Uuid::from_u64_pair(self.0.incarnation, id.0).to_string()
    }

    /// Returns the lease of this name, if this process granted it.
    fn lease_id(
        &self,
        field: &'static str,
        name: &str,
    ) -> Result<Option<LeaseId>, podium_proto::convert::Error> {
        let (incarnation, number) = uuid(field, name)?.as_u64_pair();
        Ok((incarnation == self.0.incarnation).then_some(LeaseId(number)))
    }

    /// Checks and grades results, and passes them to the actor, which stores them. Unusable results count as
    /// an offence of their worker, and its lease is freed immediately.
    async fn keep(
        &self,
        worker: Uuid,
        lease: Option<LeaseId>,
        (version, content): (PolicyVersion, Content),
        submitted: Vec<v1::TaskResult>,
    ) -> Result<Counts, Status> {
        let context = self.0.clone();
        let examined = self.0.compute(move || {
            let began = Instant::now();
            let examined = checked(submitted)
                .and_then(|results| Ok(check(&context.curriculum, &context.border, results)?));
            context.timeline.record(Activity::Grade, began);
            Ok(examined)
        });
        let examined: Result<_, Fault> = examined.await.or_refuse()?;
        let mut results = match examined {
            Ok(results) => results,
            Err(fault) => {
                let described = plain_text::escaped(&describe(&fault)).into_owned();
                let offender = self.0.handle.record_offence(worker, lease, described).await.or_refuse()?;
                return Err(Offence { offender, fault }).or_refuse();
            }
        };
        let mut dropped = Counts::default();
        if !self.0.external.is_empty() {
            dropped = self.drop_unwanted(&mut results, lease, (version, content)).await.or_refuse()?;
            self.add_external(&mut results).await.or_refuse()?;
        }
        let context = self.0.clone();
        let graded = self.0.compute(move || {
            let began = Instant::now();
            let graded = grade(&context.curriculum, &context.border, version, results);
            context.timeline.record(Activity::Grade, began);
            Ok(graded)
        });
        let results = graded.await.or_refuse()?;
        let began = Instant::now();
        let stored = self.0.handle.submit(Submission { worker, lease, version, content, results }).await;
        self.0.timeline.record(Activity::Store, began);
        let stored = stored.or_refuse()?;
        metrics::outcomes(true, 0, dropped.repeated, dropped.refused);
        Ok(Counts {
            accepted: stored.accepted,
            repeated: stored.repeated + dropped.repeated,
            refused: stored.refused + dropped.refused,
        })
    }

    /// Removes training results that would not be stored, so that no external reward is requested for them.
    async fn drop_unwanted(
        &self,
        results: &mut Checked,
        lease: Option<LeaseId>,
        (version, content): (PolicyVersion, Content),
    ) -> Result<Counts, actor::Error> {
        let slots = results.training.iter().map(|result| Slot::Training(result.id)).collect();
        let mut verdicts = self.0.handle.verdicts(version, content, lease, slots).await?.into_iter();
        let mut dropped = Counts::default();
        results.training.retain(|_| match verdicts.next() {
            Some(Verdict::Wanted) => true,
            Some(Verdict::Repeated) => {
                dropped.repeated += 1;
                false
            }
            Some(Verdict::Refused) | None => {
                dropped.refused += 1;
                false
            }
        });
        Ok(dropped)
    }

    /// Adds the external rewards of training results. Waits until they are stored.
    async fn add_external(&self, results: &mut Checked) -> Result<(), actor::Error> {
        let (began, context) = (Instant::now(), &self.0);
        let values = results.training.iter().map(|result| async move {
            let texts = result.texts();
            context.external.values(context.curriculum.task(), &result.case, result.id, &texts).await
        });
        let values = try_join_all(values).await?;
        context.timeline.record(Activity::Reward, began);
        for (result, values) in results.training.iter_mut().zip(values) {
            result.external = values;
        }
        Ok(())
    }

    async fn message(&self, lease: Lease) -> Result<v1::Lease, actor::Error> {
        let (context, slots) = (self.0.clone(), lease.slots);
        let sampling = self.0.sampling.for_work(lease.work);
        let content = self.0.policies.content(lease.version);
        let missing = policies::Error::NotThere(lease.version);
        let tasks = self.0.compute(move || {
            let task = |slot| {
                let case = context.curriculum.case(slot)?;
                let needed = sampling.constrain_answers || sampling.likelihood.is_some();
                let choices = needed.then(|| choices(context.curriculum.task(), &case));
                Ok(v1::Task { purpose: Some(slot.into()), messages: messages(&case), choices })
            };
            slots.into_iter().map(task).collect::<Result<Vec<_>, actor::Error>>()
        });
        Ok(v1::Lease {
            lease_id: self.lease_name(lease.id),
            policy_version: lease.version.0,
            policy_content: content.ok_or(missing)?.to_bytes(),
            tasks: tasks.await?,
            sampling: Some(sampling),
        })
    }
}

#[tonic::async_trait]
impl Rollout for Service {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let peer = request.remote_addr().map(|peer| peer.ip());
        let request = request.into_inner();
        let worker = uuid("RegisterRequest.worker_id", &request.worker_id).or_refuse()?;
        let identity = &self.0.identity;
        identity.check(request.protocol, &request.run_hash, &request.model_fingerprint).or_refuse()?;
        let capabilities = request.capabilities.unwrap_or_default();
        let profile = Profile {
            device: plain_text::name(&capabilities.device),
            host: plain_text::name(&capabilities.host),
            metrics_address: scraped_at("a worker", &capabilities.metrics_address, peer),
        };
        self.0.handle.register(worker, profile).await.or_refuse()?;
        Ok(Response::new(v1::RegisterResponse {
            run_id: identity.run_id.to_string(),
            heartbeat_interval_ms: self.0.network.heartbeat_interval_ms,
        }))
    }

    async fn lease(&self, request: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseResponse>, Status> {
        let request = request.into_inner();
        let worker = uuid("LeaseRequest.worker_id", &request.worker_id).or_refuse()?;
        let deadline = self.0.deadline(request.wait_ms);
        let mut asked = Instant::now();
        let ask = || {
            asked = Instant::now();
            self.0.handle.lease(worker)
        };
        let reply = self.0.poll(deadline, ask, |reply| *reply != LeaseReply::Idle).await.or_refuse()?;
        let answer = match reply {
            LeaseReply::Granted(lease) => {
                let message = self.message(lease).await.or_refuse()?;
                self.0.timeline.record(Activity::Lease, asked);
                Answer::Lease(message)
            }
            LeaseReply::Idle => Answer::Idle(v1::Idle {}),
            LeaseReply::RunOver(reason) => Answer::RunOver(over(reason)),
        };
        Ok(Response::new(v1::LeaseResponse { answer: Some(answer) }))
    }

    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let request = request.into_inner();
        let worker = uuid("SubmitRequest.worker_id", &request.worker_id).or_refuse()?;
        let lease = self.lease_id("SubmitRequest.lease_id", &request.lease_id).or_refuse()?;
        let version = PolicyVersion(request.policy_version);
        let content = Content::read("SubmitRequest.policy_content", &request.policy_content).or_refuse()?;
        self.0.timeline.reported(&request.activities);
        let name = uuid("SubmitRequest.lease_id", &request.lease_id).or_refuse()?;
        let submitted = request.results;
        let service = Self(self.0.clone());
        // Runs in its own task, so that every submitted group is counted even if the worker hangs up.
        let mut outcome = self.0.submissions.join((worker, name), async move {
            let training = submitted.iter().filter(|result| is_training(result)).count() as u64;
            metrics::submitted(training);
            let kept = service.keep(worker, lease, (version, content), submitted).await;
            kept.inspect_err(|_| metrics::failed(training))
        });
        let pending = v1::SubmitResponse { pending: true, ..Default::default() };
        let counts = tokio::select! {
            done = outcome.wait_for(Option::is_some) => match done {
                Ok(outcome) => outcome.clone().transpose()?.unwrap_or_default(),
                Err(_) => return Err(Status::internal("the submission ended unexpectedly")),
            },
            () = tokio::time::sleep_until(self.0.deadline(u64::MAX)) => return Ok(Response::new(pending)),
            () = self.0.stopping(LAST_OUTCOMES) => return Ok(Response::new(pending)),
        };
        Ok(Response::new(v1::SubmitResponse {
            accepted: counts.accepted,
            repeated_results: counts.repeated,
            refused: counts.refused,
            pending: false,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let worker = uuid("HeartbeatRequest.worker_id", &request.worker_id).or_refuse()?;
        self.0.timeline.reported(&request.activities);
        let (mut leases, mut lost) = (Vec::new(), Vec::new());
        for name in request.lease_ids {
            match self.lease_id("HeartbeatRequest.lease_ids", &name).or_refuse()? {
                Some(lease) => leases.push(lease),
                None => lost.push(name),
            }
        }
        match self.0.handle.heartbeat(worker, leases.clone()).await {
            Ok(gone) => {
                lost.extend(gone.into_iter().map(|lease| self.lease_name(lease)));
                Ok(Response::new(v1::HeartbeatResponse { lost_lease_ids: lost, known: true }))
            }
            Err(actor::Error::Machine(machine::Error::UnknownWorker { .. })) => {
                lost.extend(leases.into_iter().map(|lease| self.lease_name(lease)));
                Ok(Response::new(v1::HeartbeatResponse { lost_lease_ids: lost, known: false }))
            }
            Err(error) => Err(error).or_refuse(),
        }
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let worker = uuid("LeaveRequest.worker_id", &request.into_inner().worker_id).or_refuse()?;
        self.0.handle.disconnect(worker).await.or_refuse()?;
        Ok(Response::new(v1::LeaveResponse {}))
    }
}
