//! A rank's session with the coordinator: joins, next batches, commits.
//!
//! All received messages are checked here and converted to domain types. Requests wait as long as the coordinator
//! responds; a coordinator that stops responding is an error within the run file's limits.

use std::time::Duration;

use podium_grpo::{Group, GroupId, GroupRewards, PolicyVersion, Step};
use podium_proto::convert::{self, TryFromMessage, rank_credits, totals};
use podium_proto::{PROTOCOL_VERSION, v1};
use podium_transfer::Activities;
use podium_transfer::connection::{self, Coordinator};
use tokio_stream::StreamExt;
use tonic::{Response, Status};
use uuid::Uuid;

use crate::batch::Share;
use crate::update::{Metrics, Unusable};
use v1::batch_part::Part;

/// Time for which the coordinator may hold a request before it answers. Well below any request timeout.
const WAIT_MS: u64 = 5_000;

/// Deadline for reporting a rank's failure to the coordinator.
const FAILURE_DEADLINE: Duration = Duration::from_secs(5);

/// The failures of a session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator did not answer, or refused.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The answer is malformed.
    #[error("the coordinator's answer for step {step} {what}")]
    Answer {
        /// The step.
        step: u64,
        /// The defect.
        what: &'static str,
    },
}

impl Error {
    /// Whether the coordinator does not know this rank (any more), so that it has to join again.
    pub fn is_unknown_rank(&self) -> bool {
        matches!(self, Self::Connection(error) if error.kind() == connection::Kind::NotFound)
    }

    /// Whether this process is shutting down.
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Connection(error) if error.kind() == connection::Kind::Stopped)
    }
}

/// Identity of a rank.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Id of this process.
    pub learner_id: Uuid,
    /// Hash of the run file.
    pub run_hash: String,
    /// Fingerprint of the policy's folder.
    pub model_fingerprint: String,
    /// This rank, from 0.
    pub rank: u32,
    /// Number of ranks.
    pub world_size: u32,
    /// host:port of this process's metrics.
    pub metrics_address: String,
    /// Code version of this build.
    pub code_version: &'static str,
}

/// A rank's message at a rendezvous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// Address on which rank 0 listens; empty for other ranks.
    pub collective_address: String,
    /// The step that its newest checkpoint continues with.
    pub next_step: Step,
    /// Whether it supports NCCL.
    pub nccl: bool,
    /// Rank 0's id of a new communicator, empty for others.
    pub nccl_id: Vec<u8>,
    /// Reason of a repeated rendezvous; empty for the first.
    pub reason: String,
}

/// Result of a rendezvous: all ranks are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankGroup {
    /// host:port of rank 0's collective.
    pub collective_address: String,
    /// The rendezvous epoch.
    pub generation: u64,
    /// Rank 0's id of a new communicator, if all ranks support NCCL.
    pub nccl_id: Vec<u8>,
    /// The ranks without NCCL.
    pub without_nccl: Vec<u32>,
    /// Policy versions that were dropped, in order.
    pub dropped: Vec<u64>,
}

/// A version that the coordinator has lost and requests from rank 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The version.
    pub version: PolicyVersion,
    /// Groups of this step and later ones are stored.
    pub first_step: Step,
}

/// Response to a request for the next batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This rank's share of the requested step.
    Share {
        /// The consistent groups, with the rewards of the whole step.
        share: Share,
        /// Inconsistent groups of this rank.
        unusable: Vec<Unusable>,
    },
    /// A version must be published again first.
    Republish(Wanted),
    /// Another rank restarted: join again.
    Rejoin,
    /// The run is over, for this reason.
    RunOver(String),
}

/// A rank's end of the session.
#[derive(Debug, Clone)]
pub struct Session {
    coordinator: Coordinator,
    closing: Coordinator,
    identity: Identity,
    reward_weights: Vec<f64>,
    activities: Activities,
}

impl Session {
    /// Creates a session without sending a request. `closing`: the client that continues during a graceful shutdown.
    /// `reward_weights`: the run file's, one for each reward term.
    pub fn new(
        coordinator: Coordinator,
        closing: Coordinator,
        identity: Identity,
        reward_weights: Vec<f64>,
    ) -> Self {
        Self { coordinator, closing, identity, reward_weights, activities: Activities::default() }
    }

    /// The record of this rank's activities, which is sent with commits.
    pub const fn activities(&self) -> &Activities {
        &self.activities
    }

    /// Registers this rank and waits for the others.
    pub async fn join(&self, rendezvous: Rendezvous) -> Result<RankGroup, Error> {
        let Rendezvous { collective_address, next_step, nccl, nccl_id, reason } = rendezvous;
        let identity = &self.identity;
        let request = v1::JoinRequest {
            learner_id: identity.learner_id.to_string(),
            run_hash: identity.run_hash.clone(),
            model_fingerprint: identity.model_fingerprint.clone(),
            protocol: PROTOCOL_VERSION,
            rank: identity.rank,
            world_size: identity.world_size,
            collective_address,
            metrics_address: identity.metrics_address.clone(),
            next_step: next_step.0,
            wait_ms: WAIT_MS,
            code_version: identity.code_version.to_owned(),
            nccl,
            nccl_id,
            reason,
        };
        loop {
            let answer = self.coordinator.call("join the run", || {
                let (mut client, request) = (self.coordinator.learner(), request.clone());
                async move { client.join(request).await }
            });
            let v1::JoinResponse {
                complete,
                collective_address,
                generation,
                nccl_id,
                ranks_without_nccl,
                dropped_versions: dropped,
                ..
            } = answer.await?;
            if complete {
                let without_nccl = ranks_without_nccl;
                return Ok(RankGroup { collective_address, generation, nccl_id, without_nccl, dropped });
            }
            tracing::info!("waiting for the other {} ranks", identity.world_size.saturating_sub(1));
        }
    }

    /// Waits for the groups of a step. `lost`: requested versions that this rank cannot recompute.
    pub async fn next(&self, step: Step, lost: &[PolicyVersion]) -> Result<Next, Error> {
        let request = v1::NextBatchRequest {
            learner_id: self.identity.learner_id.to_string(),
            rank: self.identity.rank,
            step: step.0,
            wait_ms: WAIT_MS,
            lost_versions: lost.iter().map(|version| version.0).collect(),
        };
        loop {
            // A broken stream counts as a missing answer.
            let answer =
                self.coordinator.call("get the next batch", || collect(&self.coordinator, request.clone()));
            let mut parts = answer.await?.into_iter();
            match parts.next().and_then(|part| part.part) {
                Some(Part::NotReady(_)) => {}
                Some(Part::RunOver(over)) => return Ok(Next::RunOver(over.reason)),
                Some(Part::Rejoin(_)) => return Ok(Next::Rejoin),
                Some(Part::Republish(v1::Republish { policy_version, first_step })) => {
                    let (version, first_step) = (PolicyVersion(policy_version), Step(first_step));
                    return Ok(Next::Republish(Wanted { version, first_step }));
                }
                Some(Part::Header(header)) => {
                    let weights = self.reward_weights.clone();
                    let (share, unusable) = share(step, &header, parts, weights)?;
                    return Ok(Next::Share { share, unusable });
                }
                Some(Part::Group(_)) | None => {
                    return Err(Error::Answer { step: step.0, what: "has no header" });
                }
            }
        }
    }

    /// Reports a finished step; returns `true` if it ends the run. Can be repeated.
    pub async fn commit(
        &self,
        step: Step,
        metrics: &Metrics,
        checkpoint: Option<Step>,
    ) -> Result<bool, Error> {
        let request = v1::CommitStepRequest {
            learner_id: self.identity.learner_id.to_string(),
            step: step.0,
            metrics: metrics.clone().into_iter().collect(),
            checkpoint_step: checkpoint.map(|step| step.0),
            activities: Vec::new(),
        };
        let answer = self.closing.call("commit a step", || {
            let (mut client, mut request) = (self.closing.learner(), request.clone());
            let report = self.activities.report();
            request.activities.clone_from(&report.spans);
            async move {
                let answer = client.commit_step(request).await;
                if answer.is_ok() {
                    self.activities.received(&report);
                }
                answer
            }
        });
        Ok(answer.await?.run_over)
    }
}

impl Session {
    /// Reports groups of a step that this rank cannot train on; on return their slots are open again.
    pub async fn set_aside(&self, step: Step, groups: &[Unusable]) -> Result<(), Error> {
        let group = |group: &Unusable| v1::UnusableGroup {
            index: group.index,
            attempt: group.attempt,
            cause: group.cause.clone(),
        };
        let request = v1::SetAsideRequest {
            learner_id: self.identity.learner_id.to_string(),
            report_id: Uuid::now_v7().to_string(),
            step: step.0,
            groups: groups.iter().map(group).collect(),
        };
        let answer = self.coordinator.call("set groups aside", || {
            let (mut client, request) = (self.coordinator.learner(), request.clone());
            async move { client.set_aside(request).await }
        });
        answer.await?;
        Ok(())
    }

    /// Reports why this rank fails. Once, with a short deadline: no other process depends on it.
    pub async fn fail(&self, failure: v1::Failure, reason: String) {
        let learner_id = self.identity.learner_id.to_string();
        let request = v1::FailRequest { learner_id, failure: failure.into(), reason };
        let mut client = self.coordinator.learner();
        if let Ok(Err(status)) = tokio::time::timeout(FAILURE_DEADLINE, client.fail(request)).await {
            tracing::info!("could not report the failure to the coordinator: {}", status.message());
        }
    }
}

async fn collect(
    coordinator: &Coordinator,
    request: v1::NextBatchRequest,
) -> Result<Response<Vec<v1::BatchPart>>, Status> {
    let mut stream = coordinator.learner().next_batch(request).await?.into_inner();
    let mut parts = Vec::new();
    while let Some(part) = stream.next().await {
        parts.push(part?);
    }
    Ok(Response::new(parts))
}

/// Assembles a share and checks it against its header. Inconsistent groups are separated from it.
fn share(
    step: Step,
    header: &v1::BatchHeader,
    parts: impl Iterator<Item = v1::BatchPart>,
    reward_weights: Vec<f64>,
) -> Result<(Share, Vec<Unusable>), Error> {
    let wrong = |what| Error::Answer { step: step.0, what };
    if header.step != step.0 {
        return Err(wrong("is of another step"));
    }
    if header.step_rewards.len() != header.groups_in_step as usize {
        return Err(wrong("lacks the rewards of some groups"));
    }
    let step_rewards: Vec<_> = header.step_rewards.iter().map(earned).collect();
    let (mut groups, mut unusable) = (Vec::new(), Vec::new());
    for part in parts {
        let Some(Part::Group(group)) = part.part else {
            return Err(wrong("has a part that is not a group"));
        };
        let id = GroupId { step: Step(group.step), index: group.index, attempt: group.attempt };
        // Inconsistent rewards are reported by the rank that holds the group.
        let earned = step_rewards.get(id.index as usize).and_then(|earned| earned.as_ref().err());
        match (Group::try_from_message(group), earned) {
            (Ok(group), None) => groups.push(group),
            (Ok(_), Some(error)) => unusable.push(Unusable::new(id, error.to_string())),
            (Err(error), _) => unusable.push(Unusable::new(id, error.to_string())),
        }
    }
    if groups.len() + unusable.len() != header.groups as usize {
        return Err(wrong("breaks off before its last group"));
    }
    let share = Share {
        step,
        groups,
        step_rewards: step_rewards.into_iter().map(Result::unwrap_or_default).collect(),
        reward_weights,
        tokens_in_step: header.tokens_in_step,
    };
    Ok((share, unusable))
}

/// Converts a group's rewards in the header.
fn earned(group: &v1::GroupRewards) -> Result<GroupRewards, convert::Error> {
    Ok(GroupRewards {
        totals: totals(&group.rewards)?,
        terms: group.rewards.iter().map(|reward| reward.terms.clone()).collect(),
        ranks: rank_credits(&group.rewards)?,
    })
}

#[cfg(test)]
mod tests;
