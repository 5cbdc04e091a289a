//! Policy versions: which are needed, which of those cannot be served, and which rank 0 has to publish again.
//!
//! A version that is needed and missing gets no leases. Rank 0 has to publish it before it gets its next batch, since its
//! checkpoint may move past the version with the next step.

use std::collections::BTreeSet;

use podium_grpo::{PolicyVersion, Step};
use uuid::Uuid;

use super::{Effect, Error, Machine, Millis, Transition, Work};

impl Machine {
    /// Refuses a process that is not rank 0 of the current rank group.
    pub fn check_publisher(&self, learner: Uuid) -> Result<(), Error> {
        match self.ranks.rank_of(learner) {
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

    /// Takes an inspection of all needed versions: those that cannot be served.
    pub fn versions_inspected(
        &mut self,
        now: Millis,
        mut missing: BTreeSet<PolicyVersion>,
    ) -> Transition<()> {
        self.transition(now, |machine, effects| {
            let needed = machine.needed_versions();
            missing.retain(|version| needed.contains(version));
            if missing != machine.missing {
                machine.missing = missing;
                effects.push(Effect::Wake);
            }
        })
    }

    /// Takes a version whose folder is complete and whose manifest is stored.
    pub(super) fn version_published(&mut self, now: Millis, version: PolicyVersion) -> Transition<()> {
        self.transition(now, |machine, effects| machine.publish(version, effects))
    }

    /// Takes a version whose stored content was replaced, and opens anew what the old content may have sampled; the store
    /// holds none of it any more.
    pub(super) fn version_superseded(&mut self, now: Millis, version: PolicyVersion) -> Transition<()> {
        self.transition(now, |machine, effects| {
            let sampled = |work: &Work| match work {
                Work::Training(step) => step.0 >= version.0,
                Work::Evaluation(evaluated) => *evaluated == version,
            };
            let void: Vec<Work> = machine.open.keys().copied().filter(sampled).collect();
            for work in void {
                machine.leases.remove_work(work);
                machine.open.insert(work, machine.schedule.blocks(work));
            }
            machine.publish(version, effects);
            effects.push(Effect::Wake);
        })
    }

    /// Abandons the evaluation of a version that cannot be made again; the store says so.
    pub(super) fn evaluation_abandoned(&mut self, now: Millis, version: PolicyVersion) -> Transition<()> {
        self.transition(now, |machine, effects| {
            let work = Work::Evaluation(version);
            if machine.open.remove(&work).is_some() {
                machine.leases.remove_work(work);
                machine.missing.remove(&version);
                machine.evaluated.insert(version);
                machine.abandoned.insert(version);
                machine.skip_abandoned();
                machine.open_steps();
                effects.push(Effect::Wake);
            }
        })
    }

    fn publish(&mut self, version: PolicyVersion, effects: &mut Vec<Effect>) {
        self.latest = self.latest.max(version);
        if self.missing.remove(&version) {
            effects.push(Effect::Wake);
        }
    }
}
