//! The end of a run: after all its steps, or earlier if an evaluation ends it.
//!
//! Evaluations overlap with training, and are closed in order of version. If an evaluation ends the run, the
//! run ends with the next evaluated version, and no step after that version opens before the evaluation is
//! closed. The last step is therefore a function of the results alone, not of the duration of an evaluation.

use podium_grpo::PolicyVersion;

use super::{Effect, Machine, Millis, Transition};

impl Machine {
    /// Returns the version that the run ends with, which is also its number of steps.
    pub fn last_version(&self) -> PolicyVersion {
        self.ended.as_ref().map_or(self.schedule.last_version(), |(version, _)| *version)
    }

    /// Returns the reason why an evaluation ends the run before all its steps, if one does.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_ref().map(|(_, reason)| reason.as_str())
    }

    /// Returns the first evaluation that is not closed; `None` once all are closed.
    pub const fn next_evaluation(&self) -> Option<PolicyVersion> {
        self.next_evaluation
    }

    /// Returns the evaluation to close now: all its answers are stored, and all earlier evaluations are
    /// closed.
    pub fn evaluation_to_close(&self) -> Option<PolicyVersion> {
        self.next_evaluation.filter(|version| self.evaluated.contains(version))
    }

    /// Returns the first step that must not be opened yet, if any.
    pub(super) fn opens_before(&self) -> u64 {
        let may_end = self.next_evaluation.filter(|_| self.schedule.evaluations_may_end);
        let awaited = may_end.and_then(|version| self.schedule.evaluated_after(version));
        awaited.map_or(self.last_version(), |version| version.min(self.last_version())).0
    }

    /// Restores which evaluations are closed.
    pub(super) fn restore_evaluations(&mut self, ended_by: Option<(PolicyVersion, String)>) {
        let first = PolicyVersion::START;
        self.next_evaluation = self.schedule.evaluates(first).then_some(first);
        while let Some(version) = self.evaluation_to_close() {
            self.next_evaluation = self.schedule.evaluated_after(version);
        }
        if let Some((version, reason)) = ended_by {
            self.end_after(version, reason);
        }
    }

    /// Accepts an evaluation whose record is stored. `end`: the reason why the run ends with the next
    /// evaluated version.
    pub(super) fn evaluation_closed(
        &mut self,
        now: Millis,
        version: PolicyVersion,
        end: Option<String>,
    ) -> Transition<()> {
        self.transition(now, |machine, effects| {
            if machine.evaluation_to_close() != Some(version) {
                return;
            }
            machine.next_evaluation = machine.schedule.evaluated_after(version);
            if let Some(reason) = end {
                machine.end_after(version, reason);
            }
            machine.skip_abandoned();
            machine.open_steps();
            effects.push(Effect::Wake);
        })
    }

    /// Skips abandoned evaluations, which are never closed.
    pub(super) fn skip_abandoned(&mut self) {
        while let Some(version) = self.next_evaluation.filter(|version| self.abandoned.contains(version)) {
            self.next_evaluation = self.schedule.evaluated_after(version);
        }
    }

    fn end_after(&mut self, version: PolicyVersion, reason: String) {
        let early = |last: &PolicyVersion| *last < self.schedule.last_version();
        if let Some(last) = self.schedule.evaluated_after(version).filter(early) {
            self.ended.get_or_insert((last, reason));
        }
    }
}
