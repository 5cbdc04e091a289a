//! The durable storage of a run, as the sequencer needs it.

use std::future::Future;

use podium_grpo::{PolicyVersion, Step};
use podium_proto::v1;

use crate::machine::error::Error;
use crate::machine::rank_group::RankGroup;
use crate::results::{Results, SampledBy, SetAside};

/// A write: all of it is durable once it succeeds, and none of it after an error.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Results of slots, and the worker that sampled them.
    Results {
        /// The results.
        results: Results,
        /// The worker.
        worker: SampledBy,
    },
    /// A checkpoint of a rank continues with a step.
    Checkpoint {
        /// The rank.
        rank: u32,
        /// The step.
        step: Step,
    },
    /// Groups are set aside.
    SetAside {
        /// The slots whose results are removed, by index, with the last attempt that ended in equal rewards.
        removed: Vec<(u32, Option<u32>)>,
        /// Why.
        records: Vec<SetAside>,
    },
    /// A version is published.
    Published(v1::PolicyManifest),
    /// A version replaces a published one; the results that the old content may have sampled are removed.
    Superseded(v1::PolicyManifest),
    /// The evaluation of a version is abandoned; its answers are removed.
    AbandonedEvaluation {
        /// The version.
        version: PolicyVersion,
        /// Why.
        reason: String,
    },
    /// All ranks have joined.
    RankGroup(RankGroup),
    /// The groups of the steps before this one are removed.
    DroppedGroups {
        /// The first step to retain.
        before: Step,
    },
}

/// Durable storage.
pub trait Storage {
    /// Why something could not be written or read, or was refused by the machine.
    type Error: From<Error>;

    /// Writes; durable on return.
    fn write(&mut self, write: Write) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Reads the groups of a step that were set aside, by index, then in order of time.
    fn set_aside(&mut self, step: Step) -> impl Future<Output = Result<Vec<SetAside>, Self::Error>> + Send;

    /// Reads which worker and which version sampled the group of a slot, as far as that is known.
    fn sampled_by(
        &mut self,
        step: Step,
        index: u32,
    ) -> impl Future<Output = Result<(Option<SampledBy>, Option<PolicyVersion>), Self::Error>> + Send;
}
