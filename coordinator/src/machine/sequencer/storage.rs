//! The durable storage of a run, as the sequencer needs it.

use std::future::Future;

use podium_grpo::{PolicyVersion, Step};
use podium_proto::v1;

use crate::machine::error::Error;
use crate::machine::rank_group::RankGroup;
use crate::results::{Results, SampledBy, SetAside};

/// An atomic write: durable after success, without effect after an error.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Stores results of slots, each with the worker that sampled them. No slot occurs twice.
    Results(Vec<(Results, SampledBy)>),
    /// Stores the step that a rank's checkpoint continues with.
    Checkpoint {
        /// The rank.
        rank: u32,
        /// The step.
        step: Step,
    },
    /// Sets groups aside.
    SetAside {
        /// The slots whose results are removed, by index, with the last attempt that ended in equal rewards.
        removed: Vec<(u32, Option<u32>)>,
        /// The records of the groups, with the causes.
        records: Vec<SetAside>,
    },
    /// Publishes a version.
    Published(v1::PolicyManifest),
    /// Replaces a published version and removes the results that the old content may have sampled.
    Superseded(v1::PolicyManifest),
    /// Abandons the evaluation of a version and removes its answers.
    AbandonedEvaluation {
        /// The version.
        version: PolicyVersion,
        /// The reason.
        reason: String,
    },
    /// Stores a complete rank group.
    RankGroup(RankGroup),
    /// Removes the groups of the steps before this one.
    DroppedGroups {
        /// The first step to retain.
        before: Step,
    },
}

/// Durable storage.
pub trait Storage {
    /// The error of a failed write or read, or of the machine.
    type Error: From<Error>;

    /// Performs a write, which is durable on return.
    fn write(&mut self, write: Write) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Reads the groups of a step that were set aside, by index, then in order of time.
    fn set_aside(&mut self, step: Step) -> impl Future<Output = Result<Vec<SetAside>, Self::Error>> + Send;

    /// Reads the worker and the version that sampled the group of a slot, if known.
    fn sampled_by(
        &mut self,
        step: Step,
        index: u32,
    ) -> impl Future<Output = Result<(Option<SampledBy>, Option<PolicyVersion>), Self::Error>> + Send;
}
