//! What the machine refuses, with the remedy.

use podium_grpo::{PolicyVersion, Step};
use uuid::Uuid;

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A worker that has not registered, or has not spoken for too long.
    #[error("worker {worker} is not registered with this coordinator: register again")]
    UnknownWorker {
        /// Who.
        worker: Uuid,
    },
    /// A worker whose results could not be used too often.
    #[error(
        "worker {worker} gets no more work: {offences} times its results could not be used; see the coordinator's log for the causes, then start the worker again"
    )]
    Expelled {
        /// The worker.
        worker: Uuid,
        /// How often.
        offences: u32,
    },
    /// A learner process that is no rank.
    #[error("learner {learner} is no rank of this run: join again")]
    UnknownLearner {
        /// Who.
        learner: Uuid,
    },
    /// A version published by another rank than the one that publishes.
    #[error("rank {rank} published a policy version: only rank 0 does")]
    NotLeader {
        /// The rank.
        rank: u32,
    },
    /// A rank outside its own rank group.
    #[error("rank {rank} of {world_size} ranks: expected a rank from 0 to one below --world-size")]
    Rank {
        /// The rank.
        rank: u32,
        /// The number of ranks that it expects.
        world_size: u32,
    },
    /// Ranks that do not agree.
    #[error(
        "rank {rank} expects {world_size} ranks, those that joined before it {expected}: start all ranks with the same --world-size"
    )]
    WorldSize {
        /// The rank.
        rank: u32,
        /// What it expects.
        world_size: u32,
        /// What the others expect.
        expected: u32,
    },
    /// Ranks do not run the same code.
    #[error(
        "rank {rank} runs code version {found}, those that joined before it {expected}: start all ranks from one build"
    )]
    CodeVersion {
        /// The rank.
        rank: u32,
        /// Its version.
        found: String,
        /// That of the others.
        expected: String,
    },
    /// A step whose groups are deleted.
    #[error("the groups of step {} are gone: all ranks had reported checkpoints that continue with step {}; start the rank with the --state folder that holds its checkpoint", step.0, kept_from.0)]
    StepGone {
        /// The step asked for.
        step: Step,
        /// The first step whose groups are stored.
        kept_from: Step,
    },
    /// A step that comes after the next one.
    #[error("step {} was named, but the run is at step {}: the learner's --state folder belongs to another run, or the coordinator's --out folder does", step.0, committed.0)]
    StepAhead {
        /// The step named.
        step: Step,
        /// The step being made.
        committed: Step,
    },
    /// Groups of a step that is committed cannot be sampled again.
    #[error("groups of step {} cannot be sampled again: step {} is being made; continue with the build and device that trained it", step.0, committed.0)]
    StepCommitted {
        /// The step named.
        step: Step,
        /// The step being made.
        committed: Step,
    },
    /// A commit before its groups were there.
    #[error("step {} cannot be committed: only {ready} of its {wanted} groups are there", step.0)]
    NotSampled {
        /// The step.
        step: Step,
        /// Groups that are there.
        ready: u32,
        /// Groups of the step.
        wanted: u32,
    },
    /// A commit before its policy version was there.
    #[error("step {} cannot be committed: publish {version} first", step.0)]
    NotPublished {
        /// The step.
        step: Step,
        /// The version it produces.
        version: PolicyVersion,
    },
    /// A version that comes after the next one.
    #[error("{version} cannot be published: the run is at step {}, which produces {}", committed.0, committed.produces())]
    VersionAhead {
        /// The version.
        version: PolicyVersion,
        /// The step being made.
        committed: Step,
    },
}
