//! What the machine is told, and what it tells.

use std::collections::BTreeSet;

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::Slot;
use uuid::Uuid;

use super::{Error, Join, LeaseId, Millis, Standing, Work};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A worker of this run introduced itself.
    WorkerRegistered {
        /// Who.
        worker: Uuid,
    },
    /// A worker left.
    WorkerLeft {
        /// Who.
        worker: Uuid,
    },
    /// A worker said that it lives and what it works on.
    Heartbeat {
        /// Who.
        worker: Uuid,
        /// The leases that it believes to hold and that this process gave out.
        leases: Vec<LeaseId>,
    },
    /// A worker asks for work.
    LeaseWanted {
        /// Who.
        worker: Uuid,
    },
    /// Results that [`super::Machine::verdict`] wanted are durable.
    Scored {
        /// Who handed them in.
        worker: Uuid,
        /// Under which lease, if this process gave it out.
        lease: Option<LeaseId>,
        /// What they fill.
        filled: Vec<Filled>,
    },
    /// Results of a worker cannot be used.
    Offended {
        /// The worker.
        worker: Uuid,
        /// The lease that they were submitted under, if this process granted it.
        lease: Option<LeaseId>,
    },
    /// A rank joins, or asks again whether all are there.
    RankJoined(Join),
    /// A rank asks for its share of a step.
    BatchWanted {
        /// Its rank.
        rank: u32,
        /// Its process.
        learner: Uuid,
        /// The step it will train.
        step: Step,
    },
    /// Results of slots that a learner cannot train on are removed, and that is durable.
    Reopened {
        /// The step that they are of.
        step: Step,
        /// Slots by index, and the attempt whose result is removed.
        slots: Vec<(u32, u32)>,
    },
    /// A rank reports that it is alive.
    RankAlive {
        /// Its process.
        learner: Uuid,
    },
    /// A policy version is complete and durable.
    VersionPublished {
        /// Which.
        version: PolicyVersion,
    },
    /// The content of a version was replaced, and that is durable, as is the removal of what it may have sampled: the groups
    /// of the version's step and later ones.
    VersionSuperseded {
        /// Which.
        version: PolicyVersion,
    },
    /// The versions of [`super::Machine::needed_versions`] were inspected.
    VersionsInspected {
        /// Those that cannot be served.
        missing: BTreeSet<PolicyVersion>,
    },
    /// The evaluation of a version is given up, since nobody can make the version again, and that is durable.
    EvaluationLost {
        /// Of which version.
        version: PolicyVersion,
    },
    /// A step that [`super::Machine::check_commit`] found fresh is durable.
    StepCommitted {
        /// Which.
        step: Step,
    },
    /// A rank's checkpoint covers every step before this one, and that is durable.
    CheckpointKept {
        /// Which rank.
        rank: u32,
        /// The step it continues with.
        step: Step,
    },
    /// An evaluation is closed, its record durable. They are closed in order of version.
    EvaluationJudged {
        /// Of which version.
        version: PolicyVersion,
        /// Why the run is to end with the version that is evaluated after it, if it is.
        end: Option<String>,
    },
    /// A rank was told that the run is over.
    RankTold {
        /// Which rank.
        rank: u32,
    },
    /// Somebody ends the run early.
    DrainWanted {
        /// Why, for those who have to leave.
        reason: String,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done about it. The first eight answer whoever caused the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Work for the worker.
    Grant(Lease),
    /// Nothing now; ask again after [`Action::Wake`].
    Wait,
    /// The run is over.
    Leave {
        /// Why.
        reason: String,
    },
    /// Leases of a heartbeat that are not the worker's any more.
    Lost(Vec<LeaseId>),
    /// Where a joining rank stands.
    Standing(Standing),
    /// The step is complete: its groups can be read.
    ServeBatch,
    /// The rank has to join first.
    Rejoin,
    /// Rank 0 has to publish a version again first.
    Republish {
        /// Which.
        version: PolicyVersion,
        /// The first step whose groups are there, so that it can be repeated.
        first_step: Step,
    },
    /// The event is refused.
    Refuse(Error),
    /// Those who wait should ask again.
    Wake,
    /// A lease was not kept alive.
    LeaseExpired(LeaseId),
    /// A worker has not spoken for too long.
    WorkerLost(Uuid),
    /// The ranks came together: their world is to be kept.
    KeepWorld,
    /// Every held-out prompt of a version is answered.
    EvaluationComplete(PolicyVersion),
    /// The evaluation of a version is given up.
    EvaluationLost(PolicyVersion),
    /// No rank will ask for groups of steps before this one.
    DropGroups {
        /// The first step to keep.
        before: Step,
    },
    /// All steps and evaluations are done.
    RunComplete,
}

/// Work that was given to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// Of what.
    pub work: Work,
    /// The version that samples it.
    pub version: PolicyVersion,
    /// Which slots of it, all at one attempt. They are one batch, whoever computes it.
    pub slots: Vec<Slot>,
    /// Time left to hand it in or to say that one lives.
    pub deadline: Millis,
}

/// A slot that has a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Which.
    pub slot: Slot,
    /// Whether all rewards of the group are equal; never for answers to held-out prompts.
    pub zero_variance: bool,
}

/// What becomes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fills an empty slot.
    Wanted,
    /// That attempt at the slot has its result already.
    Repeated,
    /// There is no such slot, that attempt at it has not begun, or the version is none that may sample it.
    Refused,
}
