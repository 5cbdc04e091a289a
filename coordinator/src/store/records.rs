//! What the store keeps of steps and evaluations.

use podium_grpo::PolicyVersion;
use podium_proto::v1;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// One line of a report, its fields in order.
pub type Row = Map<String, Value>;

/// Results that fill slots, ready to be kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results {
    /// Of training slots.
    pub groups: Vec<v1::ScoredGroup>,
    /// Of evaluation slots: version, index, answer.
    pub answers: Vec<(PolicyVersion, u32, v1::Completion)>,
}

impl Results {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.answers.is_empty()
    }
}

/// The worker that sampled a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledBy {
    /// Its id.
    pub worker: Uuid,
    /// Its id, host and device, for people.
    pub name: String,
}

/// A group that a learner could not train on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// The report that it was in.
    pub report: Uuid,
    /// The step.
    pub step: u64,
    /// Position in the step's batch.
    pub index: u32,
    /// The attempt at that place.
    pub attempt: u32,
    /// The policy version that sampled it.
    pub policy_version: Option<u64>,
    /// The worker that sampled it, where that is known.
    pub worker: Option<SampledBy>,
    /// Why it could not be trained on.
    pub cause: String,
}

/// A committed step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Whether rank 0 reported its figures: it may have died between its checkpoint and its report.
    pub reported: bool,
    /// The step's row of metrics.jsonl.
    pub row: Row,
    /// Its rows of samples.jsonl.
    pub samples: Vec<Row>,
}

/// A complete evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Its row of evaluations.jsonl.
    pub row: Row,
    /// Where each held-out user's target was ranked; `None` where it was not, or the answer was malformed.
    pub ranks: Vec<Option<usize>>,
    /// The same in the ranking by likelihood, where there is one.
    #[serde(default)]
    pub likelihood_ranks: Option<Vec<Option<usize>>>,
    /// Its rows of samples.jsonl.
    pub samples: Vec<Row>,
}
