//! The files of a run that users and the launcher read.
//!
//! The store is authoritative; these files are derived from it. `metrics.jsonl`, `evaluations.jsonl` and
//! `samples.jsonl` grow by whole lines. They are rewritten at every start, so that a crash leaves no repeated
//! and no partial line. A failed write does not stop the run: the file is rewritten as soon as possible.

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

/// Content of the growing files.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Records of all committed steps, in order.
    pub steps: Vec<StepRecord>,
    /// Records of all complete evaluations, in order of version.
    pub evaluations: Vec<EvaluationRecord>,
}

impl Reports {
    /// Creates the reports under `folder`.
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

    /// Rewrites all lines.
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
