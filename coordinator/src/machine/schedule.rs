//! The schedule of a run: its steps, blocks and evaluations.

use std::ops::Add;

use podium_config::RunFile;
use podium_grpo::{GroupId, PolicyVersion, Step};
use podium_proto::convert::Slot;

use super::blocks::Blocks;

/// Milliseconds on a monotonic clock with an arbitrary origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Add for Millis {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// The numbers that determine the work of a run and its division into blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Number of optimizer steps.
    pub steps: u64,
    /// Number of groups per step.
    pub prompts_per_step: u32,
    /// Number of groups per training lease.
    pub prompts_per_lease: u32,
    /// Maximum number of times that a group with equal rewards is replaced by a group of another prompt.
    pub refill_attempts: u32,
    /// Maximum age of a group in versions, relative to its step; 0: synchronous.
    pub max_policy_lag: u64,
    /// Number of steps between evaluations; 0 for the first and the last version only.
    pub evaluate_every_steps: u64,
    /// Number of held-out prompts per evaluation; 0 for no evaluations.
    pub evaluation_prompts: u32,
    /// Number of held-out prompts per evaluation lease.
    pub evaluation_prompts_per_lease: u32,
    /// Whether an evaluation may end the run. Training then stays less than two evaluations ahead of the last
    /// closed one.
    pub evaluations_may_end: bool,
    /// Time after which a lease that is not renewed goes to another worker, and a silent worker is lost.
    pub lease_deadline: Millis,
}

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// The groups of a training step.
    Training(Step),
    /// The held-out prompts under a policy version.
    Evaluation(PolicyVersion),
}

impl Schedule {
    /// Returns the schedule of a run file over a data set with `held_out` users in the evaluated part.
    pub fn of(file: &RunFile, held_out: usize) -> Self {
        let held_out = u32::try_from(held_out).unwrap_or(u32::MAX);
        let users = match file.evaluation.users {
            0 => held_out,
            users => users.min(held_out),
        };
        Self {
            steps: file.run.steps,
            prompts_per_step: file.rollout.prompts_per_step,
            prompts_per_lease: file.rollout.prompts_per_lease,
            refill_attempts: file.rollout.refill_attempts,
            max_policy_lag: file.rollout.max_policy_lag,
            evaluate_every_steps: file.evaluation.every_steps,
            evaluation_prompts: users,
            evaluation_prompts_per_lease: file.evaluation.prompts_per_lease,
            evaluations_may_end: file.watch.stop_after_evaluations > 0,
            lease_deadline: Millis(file.network.lease_deadline_ms),
        }
    }

    /// Returns the version that the last step produces.
    pub const fn last_version(&self) -> PolicyVersion {
        PolicyVersion(self.steps)
    }

    /// Returns whether a version is evaluated: the first, the last, and every n-th between them.
    pub const fn evaluates(&self, version: PolicyVersion) -> bool {
        let PolicyVersion(v) = version;
        let regular = self.evaluate_every_steps > 0 && v.is_multiple_of(self.evaluate_every_steps);
        self.evaluation_prompts > 0 && v <= self.steps && (v == 0 || v == self.steps || regular)
    }

    /// Returns the next evaluated version after this one; `None` after the last.
    pub fn evaluated_after(&self, version: PolicyVersion) -> Option<PolicyVersion> {
        let PolicyVersion(v) = version;
        let regular = v.checked_div(self.evaluate_every_steps).map(|done| done + 1);
        let regular = regular.map_or(self.steps, |next| next.saturating_mul(self.evaluate_every_steps));
        (self.evaluation_prompts > 0 && v < self.steps).then(|| PolicyVersion(regular.min(self.steps)))
    }

    /// Returns whether a version may sample groups of a step: not a later version, and not one that is too
    /// old.
    pub const fn allows(&self, step: Step, version: PolicyVersion) -> bool {
        version.0 <= step.0 && version.0.saturating_add(self.max_policy_lag) >= step.0
    }

    /// Returns whether a version's folder is retained when `latest` is the newest. Retained are version 0,
    /// evaluated versions, the newest version, and versions that a lease of the step before it may use.
    pub const fn keeps(&self, version: PolicyVersion, latest: PolicyVersion) -> bool {
        let wanted = version.0.saturating_add(self.max_policy_lag).saturating_add(1) >= latest.0;
        version.0 == 0 || self.evaluates(version) || wanted
    }

    /// Returns the number of slots of a piece of work.
    pub(super) const fn slots(&self, work: Work) -> u32 {
        match work {
            Work::Training(_) => self.prompts_per_step,
            Work::Evaluation(_) => self.evaluation_prompts,
        }
    }

    /// Returns the maximum number of times that a slot of a piece of work is sampled again.
    pub(super) const fn refills(&self, work: Work) -> u32 {
        match work {
            Work::Training(_) => self.refill_attempts,
            Work::Evaluation(_) => 0,
        }
    }

    /// Returns the empty slots of a piece of work.
    pub(super) fn blocks(&self, work: Work) -> Blocks {
        let per_lease = match work {
            Work::Training(_) => self.prompts_per_lease,
            Work::Evaluation(_) => self.evaluation_prompts_per_lease,
        };
        Blocks::new(self.slots(work), per_lease, self.refills(work))
    }
}

impl Work {
    /// Returns its slot with that index and attempt; held-out prompts have a single attempt.
    pub const fn slot(self, index: u32, attempt: u32) -> Slot {
        match self {
            Self::Training(step) => Slot::Training(GroupId { step, index, attempt }),
            Self::Evaluation(version) => Slot::Evaluation { version, index },
        }
    }

    /// Returns the work of a slot, its index, and its attempt.
    pub const fn of(slot: Slot) -> (Self, u32, u32) {
        match slot {
            Slot::Training(GroupId { step, index, attempt }) => (Self::Training(step), index, attempt),
            Slot::Evaluation { version, index } => (Self::Evaluation(version), index, 0),
        }
    }
}
