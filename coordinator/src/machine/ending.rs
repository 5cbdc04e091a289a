//! Where a run ends: with all its steps, or before, where what the evaluations found says so.
//!
//! Evaluations overlap with training, and are judged in order of version. One that ends the run ends it with the version
//! that is evaluated next, and no step after that version is opened before the judgement is there. So the last step is a
//! function of the results alone, not of how long an evaluation took beside the steps.

use podium_grpo::PolicyVersion;

use super::{Action, Machine};

impl Machine {
    /// The version that the run ends with: as many steps are made.
    pub fn last_version(&self) -> PolicyVersion {
        self.ended.as_ref().map_or(self.plan.last_version(), |(version, _)| *version)
    }

    /// Why the run ends before all its steps are made, if an evaluation said so.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_ref().map(|(_, reason)| reason.as_str())
    }

    /// The evaluation that is to be judged next; `None` once all are.
    pub const fn to_judge(&self) -> Option<PolicyVersion> {
        self.to_judge
    }

    /// The first step that must not be opened yet, if ever.
    pub(super) fn opens_before(&self) -> u64 {
        let may_end = self.to_judge.filter(|_| self.plan.evaluations_may_end);
        let awaited = may_end.and_then(|version| self.plan.evaluated_after(version));
        awaited.map_or(self.last_version(), |version| version.min(self.last_version())).0
    }

    /// Takes up what the store knows of judgements.
    pub(super) fn restore_judgements(&mut self, ended_by: Option<(PolicyVersion, String)>) {
        let first = PolicyVersion::START;
        self.to_judge = self.plan.evaluates(first).then_some(first);
        while let Some(version) = self.to_judge.filter(|version| self.evaluated.contains(version)) {
            self.to_judge = self.plan.evaluated_after(version);
        }
        if let Some((version, reason)) = ended_by {
            self.end_after(version, reason);
        }
    }

    pub(super) fn judge(&mut self, version: PolicyVersion, end: Option<String>, actions: &mut Vec<Action>) {
        if self.to_judge != Some(version) {
            return;
        }
        self.to_judge = self.plan.evaluated_after(version);
        if let Some(reason) = end {
            self.end_after(version, reason);
        }
        self.open_steps();
        actions.push(Action::Wake);
    }

    fn end_after(&mut self, version: PolicyVersion, reason: String) {
        let early = |last: &PolicyVersion| *last < self.plan.last_version();
        if let Some(last) = self.plan.evaluated_after(version).filter(early) {
            self.ended.get_or_insert((last, reason));
        }
    }
}
