//! Identifiers of steps, policy versions and groups.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An optimizer step of a run, from 0. Step `s` trains on the groups sampled for it and produces the next policy
/// version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Step(pub u64);

/// A version of the policy: 0 is the initial policy, version `s + 1` is produced by step `s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyVersion(pub u64);

/// Identifies a group: an attempt at the slot `index` of a step. Groups are trained on in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId {
    /// The step that trains on the group.
    pub step: Step,
    /// Position in the step's batch, from 0.
    pub index: u32,
    /// Attempt of dynamic sampling at this slot, from 0. Each attempt has its own prompt; a step trains on one of them.
    #[serde(default)]
    pub attempt: u32,
}

impl GroupId {
    /// The first attempt at a slot, and the only one without dynamic sampling.
    pub const fn first(step: Step, index: u32) -> Self {
        Self { step, index, attempt: 0 }
    }
}

impl Step {
    /// The version that exists once this step is committed.
    pub const fn produces(self) -> PolicyVersion {
        PolicyVersion(self.0 + 1)
    }

    /// The step after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl PolicyVersion {
    /// The version a run starts from.
    pub const START: Self = Self(0);
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}", self.0)
    }
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy version {}", self.0)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}.{}", self.step.0, self.index)?;
        if self.attempt == 0 { Ok(()) } else { write!(f, " (attempt {})", self.attempt) }
    }
}
