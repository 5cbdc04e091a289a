//! Policy versions: which of them are needed, which of those cannot be served, and which rank 0 is to publish again.
//!
//! A version that is needed and missing gets no leases. Rank 0 is asked for it before it gets its next batch, since its
//! checkpoint may move past the version with the next step.

use std::collections::BTreeSet;

use podium_grpo::{PolicyVersion, Step};
use uuid::Uuid;

use super::{Action, Error, Machine, Work};

impl Machine {
    /// Refuses a process that is not rank 0 of the current rank group.
    pub fn check_publisher(&self, learner: Uuid) -> Result<(), Error> {
        match self.world.rank_of(learner) {
            Some(0) => Ok(()),
            Some(rank) => Err(Error::NotLeader { rank }),
            None => Err(Error::UnknownLearner { learner }),
        }
    }

    /// Whether rank 0 may replace the content of a version: of the one after the last committed step, on which nothing is
    /// built that was trained.
    pub fn may_supersede(&self, version: PolicyVersion) -> bool {
        version == self.committed.produces()
    }

    /// The versions that a worker or rank may fetch now.
    pub fn needed_versions(&self) -> BTreeSet<PolicyVersion> {
        if self.complete {
            return BTreeSet::new();
        }
        let unfinished = self.open.iter().filter(|(_, blocks)| !blocks.is_full());
        let sampled = unfinished.map(|(work, _)| self.sampled_by(*work));
        sampled.chain([PolicyVersion::START, self.latest]).collect()
    }

    /// Whether a version is to be evaluated and is not.
    pub fn awaits_evaluation(&self, version: PolicyVersion) -> bool {
        self.open.contains_key(&Work::Evaluation(version))
    }

    /// The version that samples a piece of work if it is leased now.
    pub(super) fn sampled_by(&self, work: Work) -> PolicyVersion {
        match work {
            // The newest there is, unless the step's own product is: the learner is about to repeat or commit the step.
            Work::Training(step) => self.latest.min(PolicyVersion(step.0)),
            Work::Evaluation(version) => version,
        }
    }

    /// The version that rank 0, which is about to make `step`, should publish again first: the one that it holds, else the
    /// oldest.
    pub fn to_republish(&self, step: Step) -> Option<PolicyVersion> {
        let held = PolicyVersion(step.0);
        let needed = self.needed_versions();
        let mut missing = self.missing.iter().filter(|version| **version <= held && needed.contains(version));
        if self.missing.contains(&held) && needed.contains(&held) {
            Some(held)
        } else {
            missing.next().copied()
        }
    }

    /// Takes the result of an inspection of all needed versions.
    pub(super) fn inspected(&mut self, mut missing: BTreeSet<PolicyVersion>, actions: &mut Vec<Action>) {
        let needed = self.needed_versions();
        missing.retain(|version| needed.contains(version));
        if missing != self.missing {
            self.missing = missing;
            actions.push(Action::Wake);
        }
    }

    pub(super) fn published(&mut self, version: PolicyVersion, actions: &mut Vec<Action>) {
        self.latest = self.latest.max(version);
        if self.missing.remove(&version) {
            actions.push(Action::Wake);
        }
    }

    /// Opens anew what the superseded content of a version may have sampled.
    pub(super) fn supersede(&mut self, version: PolicyVersion, actions: &mut Vec<Action>) {
        let sampled = |work: &Work| match work {
            Work::Training(step) => step.0 >= version.0,
            Work::Evaluation(evaluated) => *evaluated == version,
        };
        let void: Vec<Work> = self.open.keys().copied().filter(sampled).collect();
        for work in void {
            self.leases.remove_work(work);
            self.open.insert(work, self.plan.blocks(work));
        }
        self.published(version, actions);
        actions.push(Action::Wake);
    }

    /// Gives up the evaluation of a version that nobody can make again.
    pub(super) fn lose_evaluation(&mut self, version: PolicyVersion, actions: &mut Vec<Action>) {
        let work = Work::Evaluation(version);
        if self.open.remove(&work).is_some() {
            self.leases.remove_work(work);
            self.missing.remove(&version);
            self.evaluated.insert(version);
            actions.extend([Action::EvaluationLost(version), Action::Wake]);
        }
    }
}
