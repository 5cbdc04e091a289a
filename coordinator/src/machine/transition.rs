//! Results of calls to the machine, and the types of its replies.

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::Slot;
use uuid::Uuid;

use super::leases::LeaseId;
use super::schedule::{Millis, Work};

/// The reply to the caller of a transition, and the effects that the driver performs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition<T> {
    /// The reply to the caller.
    pub reply: T,
    /// Effects for the driver to perform, in this order.
    pub effects: Vec<Effect>,
}

/// An action that the driver of the machine performs after a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Notify callers that wait for work, a batch or a rank to repeat their request.
    Wake,
    /// Report a lease that was not renewed in time.
    LeaseExpired(LeaseId),
    /// Report a worker that was silent for the lease deadline.
    WorkerLost(Uuid),
    /// Store the rank group: all ranks have joined.
    StoreRankGroup,
    /// Delete the stored groups of the steps before this one: the checkpoints of all ranks cover them.
    DropGroups {
        /// The first step to retain.
        before: Step,
    },
    /// Finish the run: all steps and evaluations are done.
    RunComplete,
}

/// A block of slots that is assigned to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// The work that the slots belong to.
    pub work: Work,
    /// The version that samples the slots.
    pub version: PolicyVersion,
    /// The slots, all with the same attempt. They are one batch on every worker.
    pub slots: Vec<Slot>,
    /// Time until the lease expires unless the worker submits results or renews it by a heartbeat.
    pub deadline: Millis,
}

/// The reply to a worker that requests a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseReply {
    /// The lease is granted.
    Granted(Lease),
    /// There is no work now; repeat the request after [`Effect::Wake`].
    Idle,
    /// The run is over, for this reason.
    RunOver(String),
}

/// The reply to a rank that requests its share of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchReply {
    /// All groups of the step are stored.
    Ready {
        /// Number of ranks that share the groups.
        world_size: u32,
    },
    /// Groups are missing; repeat the request after [`Effect::Wake`].
    NotReady,
    /// The rank must join first.
    Rejoin,
    /// Rank 0 must first publish a version again.
    Republish {
        /// The version.
        version: PolicyVersion,
        /// The first step whose groups are stored, so that it can be repeated.
        first_step: Step,
    },
    /// The run is over, for this reason.
    RunOver(String),
}

/// The outcome of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fills an empty slot.
    Wanted,
    /// This attempt at the slot already has its result.
    Repeated,
    /// The slot does not exist, its attempt has not begun, or the version may not sample it.
    Refused,
}
