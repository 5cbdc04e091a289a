//! A rank's conversation with the coordinator: joining, the next share of groups, commits.
//!
//! Everything that arrives is checked here and becomes a domain type. Waiting goes on for as long as the coordinator
//! answers; that it stops answering is an error within the run file's limits.

use std::time::Duration;

use podium_grpo::{Group, GroupId, GroupRewards, PolicyVersion, Step};
use podium_proto::convert::{self, TryFromMessage, rank_credits, totals};
use podium_proto::{PROTOCOL_VERSION, v1};
use podium_transfer::connection::{self, Coordinator};
use tokio_stream::StreamExt;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::batch::Share;
use crate::update::{Metrics, Unusable};
use v1::batch_part::Part;

/// How long the coordinator may hold a question that it cannot answer yet. Well below any request timeout.
const WAIT_MS: u64 = 5_000;

/// How long the coordinator has to hear why a rank ends.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Why the conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator did not answer, or refused.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The answer has not the form that it should have.
    #[error("the coordinator's answer for step {step} {what}")]
    Answer {
        /// Which step.
        step: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Error {
    /// Whether the coordinator does not know this rank (any more), so that it has to join.
    pub fn is_unknown_rank(&self) -> bool {
        match self {
            Self::Connection(connection::Error::Refused { status, .. }) => status.code() == Code::NotFound,
            _ => false,
        }
    }

    /// Whether this process was asked to leave.
    pub const fn is_stop(&self) -> bool {
        matches!(self, Self::Connection(connection::Error::Stopped { .. }))
    }
}

/// Who a rank is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Of this process.
    pub learner_id: Uuid,
    /// Hash of the run file.
    pub run_hash: String,
    /// Of the policy's folder.
    pub model_fingerprint: String,
    /// From 0.
    pub rank: u32,
    /// Number of ranks.
    pub world_size: u32,
    /// host:port of this process's metrics.
    pub metrics_address: String,
    /// Of this build.
    pub code_version: &'static str,
}

/// What a rank brings to a rendezvous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// Where rank 0 listens, empty for others.
    pub collective_address: String,
    /// The step that its newest checkpoint continues with.
    pub next_step: Step,
    /// Whether it can take part in NCCL.
    pub nccl: bool,
    /// Rank 0's id of a new communicator, empty for others.
    pub nccl_id: Vec<u8>,
    /// Why it comes again; empty for the first time.
    pub reason: String,
}

/// All ranks are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// host:port of rank 0's collective.
    pub collective_address: String,
    /// How often the world has come together.
    pub generation: u64,
    /// Rank 0's id of a new communicator, where all ranks can take part in NCCL.
    pub nccl_id: Vec<u8>,
    /// The ranks that cannot.
    pub without_nccl: Vec<u32>,
    /// Policy versions that were dropped, in order.
    pub dropped: Vec<u64>,
}

/// A version that the coordinator has lost and asks rank 0 for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub version: PolicyVersion,
    /// Groups of this step and later ones are stored.
    pub first_step: Step,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This rank's share of the step that was asked for.
    Share {
        /// The groups that hold together, and what is known of the rest.
        share: Share,
        /// Groups of this rank that do not hold together.
        unusable: Vec<Unusable>,
    },
    /// A version is to be published again first.
    Republish(Wanted),
    /// Another rank came back: join again.
    Rejoin,
    /// The run is over, for this reason.
    RunOver(String),
}

/// A rank's side of the conversation.
#[derive(Debug, Clone)]
pub struct Session {
    coordinator: Coordinator,
    parting: Coordinator,
    identity: Identity,
    reward_weights: Vec<f64>,
}

impl Session {
    /// Nothing is said yet. `parting`: the way for what a rank that leaves still has to say. `reward_weights`: the run file's,
    /// one for each reward term.
    pub const fn new(
        coordinator: Coordinator,
        parting: Coordinator,
        identity: Identity,
        reward_weights: Vec<f64>,
    ) -> Self {
        Self { coordinator, parting, identity, reward_weights }
    }

    /// Introduces this rank and waits for the others.
    pub async fn join(&self, rendezvous: Rendezvous) -> Result<World, Error> {
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
                return Ok(World { collective_address, generation, nccl_id, without_nccl, dropped });
            }
            tracing::info!("waiting for the other {} ranks", identity.world_size.saturating_sub(1));
        }
    }

    /// Waits for the groups of a step. `lost`: versions that this rank was asked for and cannot make again.
    pub async fn next(&self, step: Step, lost: &[PolicyVersion]) -> Result<Next, Error> {
        let request = v1::NextBatchRequest {
            learner_id: self.identity.learner_id.to_string(),
            rank: self.identity.rank,
            step: step.0,
            wait_ms: WAIT_MS,
            lost_versions: lost.iter().map(|version| version.0).collect(),
        };
        loop {
            // A stream that breaks off counts as an answer that did not come.
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

    /// Reports a finished step; `true` if the run is over with it. Can be repeated.
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
        };
        let answer = self.parting.call("commit a step", || {
            let (mut client, request) = (self.parting.learner(), request.clone());
            async move { client.commit_step(request).await }
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

    /// Says why this rank ends before its time. Once, and for a short time: nobody depends on it.
    pub async fn fail(&self, failure: v1::Failure, reason: String) {
        let learner_id = self.identity.learner_id.to_string();
        let request = v1::FailRequest { learner_id, failure: failure.into(), reason };
        let mut client = self.coordinator.learner();
        if let Ok(Err(status)) = tokio::time::timeout(LAST_WORD, client.fail(request)).await {
            tracing::info!("the coordinator could not be told why: {}", status.message());
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

/// Puts a share together and checks it against its header. Groups that do not hold together come apart from it.
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
        return Err(wrong("does not give the rewards of every group"));
    }
    let step_rewards: Vec<_> = header.step_rewards.iter().map(earned).collect();
    let (mut groups, mut unusable) = (Vec::new(), Vec::new());
    for part in parts {
        let Some(Part::Group(group)) = part.part else {
            return Err(wrong("has something else among its groups"));
        };
        let id = GroupId { step: Step(group.step), index: group.index, attempt: group.attempt };
        // Rewards that do not hold together are reported by the rank whose group they are of.
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

/// What a group earned, by its part of the header.
fn earned(group: &v1::GroupRewards) -> Result<GroupRewards, convert::Error> {
    Ok(GroupRewards {
        totals: totals(&group.rewards)?,
        terms: group.rewards.iter().map(|reward| reward.terms.clone()).collect(),
        ranks: rank_credits(&group.rewards)?,
    })
}

#[cfg(test)]
mod tests;
