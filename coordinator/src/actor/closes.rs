//! The jobs that close a step or an evaluation, and the commands that wait for them.

use std::time::Instant;

use podium_grpo::{PolicyVersion, Step};
use tokio::task::JoinSet;

use super::command::Command;
use super::error::Error;
use crate::policies;
use crate::reports::watch::Findings;
use crate::store::{EvaluationRecord, StepRecord};

/// A job that has ended.
#[derive(Debug)]
pub(super) enum Closed {
    Step {
        step: Step,
        began: Instant,
        /// Seconds since the previous step.
        seconds: f64,
        /// The record, and the error of removing unneeded folders, if any.
        result: Result<(StepRecord, Option<policies::Error>), Error>,
    },
    Evaluation {
        version: PolicyVersion,
        began: Instant,
        result: Result<(EvaluationRecord, Findings), Error>,
    },
}

/// The running jobs: at most one for a step and one for an evaluation.
#[derive(Debug, Default)]
pub(super) struct Closes {
    jobs: JoinSet<Closed>,
    evaluation: Option<PolicyVersion>,
    /// Commands that depend on the commit of the step that is being closed, in order.
    parked: Vec<Command>,
}

impl Closes {
    /// Starts to close a step.
    pub(super) fn start_step(&mut self, close: impl FnOnce() -> Closed + Send + 'static) {
        self.jobs.spawn_blocking(close);
    }

    /// Starts to close an evaluation, unless one is being closed.
    pub(super) fn start_evaluation(
        &mut self,
        version: PolicyVersion,
        close: impl FnOnce() -> Closed + Send + 'static,
    ) {
        if self.evaluation.is_none() {
            self.evaluation = Some(version);
            self.jobs.spawn_blocking(close);
        }
    }

    /// Waits for the next job that ends; `None` if no job runs.
    pub(super) async fn next(&mut self) -> Option<Closed> {
        match self.jobs.join_next().await? {
            Ok(closed) => {
                if matches!(closed, Closed::Evaluation { .. }) {
                    self.evaluation = None;
                }
                Some(closed)
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }

    /// Returns whether no job is running.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Holds a command until the step is closed.
    pub(super) fn park(&mut self, command: Command) {
        self.parked.push(command);
    }

    /// Takes the commands that waited for the step.
    pub(super) fn take_parked(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.parked)
    }
}
