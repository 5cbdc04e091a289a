//! Closes steps and evaluations in the simulation, concurrently with all other events.

use super::*;

/// The closes of the coordinator's process, and whether their records are stored.
#[derive(Default)]
pub(super) struct Closing {
    step: Option<(Step, bool)>,
    evaluation: Option<(PolicyVersion, bool)>,
}

impl Simulation {
    /// Starts to close the step that the sequencer must close, unless its close is in progress.
    pub(super) fn begin_close(&mut self) {
        let step = self.run.closing();
        self.closing.step = self.closing.step.or(step.map(|step| (step, false)));
    }

    /// Advances one of the closes.
    pub(super) fn closing_turn(&mut self) {
        if self.happens(2) {
            self.step_turn();
        } else {
            self.evaluation_turn();
        }
    }

    fn step_turn(&mut self) {
        match self.closing.step {
            Some((step, false)) => match self.run.storage_mut().store_step(step) {
                Ok(()) => self.closing.step = Some((step, true)),
                Err(_) if self.run.storage().has_crashed() => self.coordinator_restarts(),
                Err(_) => {
                    self.closing.step = None;
                    self.run.close_failed();
                }
            },
            Some((_, true)) => {
                self.closing.step = None;
                self.ask(async |run, now| {
                    run.step_closed(now).await;
                    Ok(())
                });
            }
            None => {}
        }
    }

    fn evaluation_turn(&mut self) {
        match self.closing.evaluation {
            Some((version, false)) => {
                let end = self.end(version);
                match self.run.storage_mut().store_evaluation(version, end) {
                    Ok(()) => self.closing.evaluation = Some((version, true)),
                    Err(_) if self.run.storage().has_crashed() => self.coordinator_restarts(),
                    Err(_) => self.closing.evaluation = None,
                }
            }
            Some((version, true)) => {
                self.closing.evaluation = None;
                let end = self.end(version);
                self.ask(async |run, now| {
                    run.evaluation_closed(now, version, end).await;
                    Ok(())
                });
            }
            None => {
                self.closing.evaluation =
                    self.run.machine().evaluation_to_close().map(|version| (version, false));
            }
        }
    }

    fn end(&self, version: PolicyVersion) -> Option<String> {
        self.ends.filter(|ends| *ends == version).map(|_| "nothing gets better".to_owned())
    }
}
