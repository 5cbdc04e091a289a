//! What workers compute in the simulation, and what the coordinator's store keeps of it.

use std::collections::{BTreeMap, BTreeSet};

use podium_grpo::rng::Stream;
use podium_grpo::{GroupId, PolicyVersion};
use podium_proto::convert::Slot;

use crate::machine::{Filled, Lease, Recovered, Work};

/// What the coordinator's store holds.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) recovered: Recovered,
    /// Slots that were reopened, by step and index.
    pub(super) reopened: BTreeSet<(u64, u32)>,
    pub(super) contents: BTreeMap<(Work, u32), Content>,
}

/// What a worker computes for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) slot: Slot,
    pub(super) version: PolicyVersion,
    /// It depends on the version and on the whole batch that the lease names.
    pub(super) bits: u64,
    /// No rank can train on it. What it earns is as wrong as the rest: dynamic sampling keeps it.
    pub(super) unusable: bool,
}

impl Content {
    /// What is left of a slot whose later attempts were removed: that this one ended in equal rewards.
    pub(super) fn stub(slot: Slot) -> Self {
        Self { slot, version: PolicyVersion(0), bits: 0, unusable: false }
    }

    pub(super) fn filled(&self) -> Filled {
        Filled { slot: self.slot, zero_variance: prompt(self.slot).1 && !self.unusable }
    }
}

pub(super) fn content(lease: &Lease, slot: Slot) -> Content {
    let key = |slot: &Slot| match *slot {
        Slot::Training(GroupId { step, index, attempt }) => [1, step.0, index.into(), attempt.into()],
        Slot::Evaluation { version, index } => [0, version.0, index.into(), 0],
    };
    let whole: Vec<u64> =
        [lease.version.0].into_iter().chain(key(&slot)).chain(lease.slots.iter().flat_map(key)).collect();
    let bits = Stream::new(1, "content", &whole).next_u64();
    Content { slot, version: lease.version, bits, unusable: false }
}

/// What a prompt's completions are like under any version: their tokens, and whether all earn the same.
pub(super) fn prompt(slot: Slot) -> (u64, bool) {
    let Slot::Training(GroupId { step, index, attempt }) = slot else { return (5, false) };
    let mut stream = Stream::new(1, "prompt", &[step.0, index.into(), attempt.into()]);
    (1 + stream.below(30), stream.below(3) == 0)
}
