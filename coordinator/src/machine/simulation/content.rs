//! Results of workers in the simulation.

use podium_grpo::rng::Stream;
use podium_grpo::{GroupId, PolicyVersion, Step};
use podium_proto::convert::Slot;
use podium_proto::v1;

use crate::machine::Lease;

/// The result of a worker for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) slot: Slot,
    pub(super) version: PolicyVersion,
    /// Depends on the version and on the whole batch of the lease.
    pub(super) bits: u64,
    /// No rank can train on it. Its rewards are wrong, too, so dynamic sampling retains it.
    pub(super) unusable: bool,
}

impl Content {
    /// Returns the content as a group.
    pub(super) fn group(&self) -> v1::ScoredGroup {
        let Slot::Training(GroupId { step, index, attempt }) = self.slot else {
            unreachable!("a group is of a training slot")
        };
        let has_equal_rewards = prompt(self.slot).1 && !self.unusable;
        let reward = |total| v1::Reward { total: Some(total), ..v1::Reward::default() };
        v1::ScoredGroup {
            step: step.0,
            index,
            attempt,
            policy_version: self.version.0,
            prompt_ids: vec![(self.bits >> 32) as u32, self.bits as u32, u32::from(self.unusable)],
            rewards: vec![reward(0.0), reward(f64::from(u8::from(!has_equal_rewards)))],
            ..v1::ScoredGroup::default()
        }
    }

    /// Returns the content of a group.
    pub(super) fn of_group(group: &v1::ScoredGroup) -> Self {
        let [high, low, unusable] = group.prompt_ids[..] else { unreachable!("{group:?}") };
        Self {
            slot: Slot::Training(GroupId {
                step: Step(group.step),
                index: group.index,
                attempt: group.attempt,
            }),
            version: PolicyVersion(group.policy_version),
            bits: u64::from(high) << 32 | u64::from(low),
            unusable: unusable != 0,
        }
    }

    /// Returns the content as an answer to a held-out prompt.
    pub(super) fn answer(&self) -> v1::Completion {
        v1::Completion {
            token_ids: vec![(self.bits >> 32) as u32, self.bits as u32],
            ..v1::Completion::default()
        }
    }

    /// Returns the content of an answer.
    pub(super) fn of_answer(version: PolicyVersion, index: u32, answer: &v1::Completion) -> Self {
        let [high, low] = answer.token_ids[..] else { unreachable!("{answer:?}") };
        let bits = u64::from(high) << 32 | u64::from(low);
        Self { slot: Slot::Evaluation { version, index }, version, bits, unusable: false }
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

/// Returns the properties of a prompt's completions under any version: the number of tokens, and whether all
/// rewards are equal.
pub(super) fn prompt(slot: Slot) -> (u64, bool) {
    let Slot::Training(GroupId { step, index, attempt }) = slot else { return (5, false) };
    let mut stream = Stream::new(1, "prompt", &[step.0, index.into(), attempt.into()]);
    (1 + stream.below(30), stream.below(3) == 0)
}
