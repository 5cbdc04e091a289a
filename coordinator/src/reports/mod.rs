//! The files of a run that people and the launcher read.
//!
//! The store is the truth; these are its views. `metrics.jsonl`, `evaluations.jsonl` and `samples.jsonl` grow by whole
//! lines and are written anew at every start, so that a crash leaves no repeated and no torn line. A view that could not
//! be written does not stop the run: it is caught up with as soon as it can be.

pub mod answers;
pub mod estimates;
pub mod evaluation;
pub mod forms;
pub mod likelihood;
mod lines;
pub mod parts;
pub mod recording;
pub mod samples;
pub mod step;
pub mod summary;
pub mod watch;

use std::path::Path;

use podium_files::durable;

use crate::store::{EvaluationRecord, Row, StepRecord};
use lines::Lines;

/// The three growing files.
#[derive(Debug)]
pub struct Reports {
    metrics: Lines,
    evaluations: Lines,
    samples: Lines,
}

/// Everything that the growing files hold.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Of all committed steps, in order.
    pub steps: Vec<StepRecord>,
    /// Of all complete evaluations, in order of version.
    pub evaluations: Vec<EvaluationRecord>,
}

impl Reports {
    /// The files under `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            metrics: Lines::new(folder.join("metrics.jsonl")),
            evaluations: Lines::new(folder.join("evaluations.jsonl")),
            samples: Lines::new(folder.join("samples.jsonl")),
        }
    }

    /// Appends a step's lines. After an error, call [`Reports::rewrite`].
    pub fn add_step(&self, record: &StepRecord) -> Result<(), durable::Error> {
        self.metrics.append([&record.row])?;
        self.samples.append(&record.samples)
    }

    /// Appends an evaluation's lines. After an error, call [`Reports::rewrite`].
    pub fn add_evaluation(&self, record: &EvaluationRecord) -> Result<(), durable::Error> {
        self.evaluations.append([&record.row])?;
        self.samples.append(&record.samples)
    }

    /// Writes all lines anew.
    pub fn rewrite(&self, contents: &Contents) -> Result<(), durable::Error> {
        let Contents { steps, evaluations } = contents;
        self.metrics.replace(steps.iter().map(|record| &record.row))?;
        self.evaluations.replace(evaluations.iter().map(|record| &record.row))?;
        let samples: Vec<&Row> = {
            let training = steps.iter().flat_map(|record| &record.samples);
            training.chain(evaluations.iter().flat_map(|record| &record.samples)).collect()
        };
        self.samples.replace(samples)
    }
}
