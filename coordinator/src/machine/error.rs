//! Events that the machine refuses, with the remedy.

use podium_grpo::{PolicyVersion, Step};
use uuid::Uuid;

/// The reasons why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The worker has not registered, or has been silent too long.
    #[error("worker {worker} is not registered with this coordinator: register again")]
    UnknownWorker {
        /// The worker.
        worker: Uuid,
    },
    /// The worker submitted unusable results too often.
    #[error(
        "worker {worker} receives no more leases: its results were unusable {offences} times; see the coordinator's log for the causes, then restart the worker"
    )]
    Expelled {
        /// The worker.
        worker: Uuid,
        /// Number of its offences.
        offences: u32,
    },
    /// The learner process is not a rank.
    #[error("learner {learner} is no rank of this run: join again")]
    UnknownLearner {
        /// The process.
        learner: Uuid,
    },
    /// A rank other than 0 publishes a version.
    #[error("rank {rank} published a policy version: only rank 0 does")]
    NotLeader {
        /// The rank.
        rank: u32,
    },
    /// The rank is outside its rank group.
    #[error("rank {rank} of {world_size} ranks: expected a rank from 0 to one below --world-size")]
    Rank {
        /// The rank.
        rank: u32,
        /// Its number of ranks.
        world_size: u32,
    },
    /// The ranks expect different numbers of ranks.
    #[error(
        "rank {rank} expects {world_size} ranks, those that joined before it {expected}: start all ranks with the same --world-size"
    )]
    WorldSize {
        /// The rank.
        rank: u32,
        /// The number that it expects.
        world_size: u32,
        /// The number that the others expect.
        expected: u32,
    },
    /// The ranks run different code versions.
    #[error(
        "rank {rank} runs code version {found}, those that joined before it {expected}: start all ranks from one build"
    )]
    CodeVersion {
        /// The rank.
        rank: u32,
        /// Its code version.
        found: String,
        /// The code version of the others.
        expected: String,
    },
    /// The groups of the step are deleted.
    #[error("the groups of step {} are deleted: all ranks had reported checkpoints that continue with step {}; start the rank with the --state folder that holds its checkpoint", step.0, kept_from.0)]
    StepGone {
        /// The requested step.
        step: Step,
        /// The first step whose groups are stored.
        kept_from: Step,
    },
    /// The step is later than the next one.
    #[error("step {} was requested, but the run is at step {}: the learner's --state folder belongs to another run, or the coordinator's --out folder does", step.0, committed.0)]
    StepAhead {
        /// The requested step.
        step: Step,
        /// The current step.
        committed: Step,
    },
    /// The groups of a committed step cannot be sampled again.
    #[error("groups of step {} cannot be sampled again: step {} is in progress; continue with the build and device that trained it", step.0, committed.0)]
    StepCommitted {
        /// The requested step.
        step: Step,
        /// The current step.
        committed: Step,
    },
    /// A step was committed before all its groups were sampled.
    #[error("step {} cannot be committed: only {ready} of its {wanted} groups are stored", step.0)]
    NotSampled {
        /// The step.
        step: Step,
        /// Number of sampled groups.
        ready: u32,
        /// Number of groups of the step.
        wanted: u32,
    },
    /// A step was committed before its policy version was published.
    #[error("step {} cannot be committed: publish {version} first", step.0)]
    NotPublished {
        /// The step.
        step: Step,
        /// The version that the step produces.
        version: PolicyVersion,
    },
    /// The version is later than the next one.
    #[error("{version} cannot be published: the run is at step {}, which produces {}", committed.0, committed.produces())]
    VersionAhead {
        /// The version.
        version: PolicyVersion,
        /// The current step.
        committed: Step,
    },
}
