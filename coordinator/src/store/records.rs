//! The records of steps and evaluations.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One line of a report, its fields in order.
pub type Row = Map<String, Value>;

/// A committed step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Whether rank 0 reported its metrics: it may have died between its checkpoint and its report.
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
    /// Rank of each held-out user's target; `None` if it was not listed or the answer is malformed.
    pub ranks: Vec<Option<usize>>,
    /// The same for the ranking by likelihood, if there is one.
    #[serde(default)]
    pub likelihood_ranks: Option<Vec<Option<usize>>>,
    /// Its rows of samples.jsonl.
    pub samples: Vec<Row>,
}
