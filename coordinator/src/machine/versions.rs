//! Policy versions: those that are needed, those that are missing, and those that rank 0 must publish again.
//!
//! A needed version that is missing gets no leases. Rank 0 must publish it before it gets its next batch,
//! because its checkpoint may move past the version with the next step.

use std::collections::BTreeSet;

use podium_grpo::{PolicyVersion, Step};
use uuid::Uuid;

use super::{Effect, Error, Machine, Millis, Transition, Work};

impl Machine {
    /// Checks that a process is rank 0 of the current rank group.
    pub fn check_publisher(&self, learner: Uuid) -> Result<(), Error> {
        match self.ranks.rank_of(learner) {
            Some(0) => Ok(()),
            Some(rank) => Err(Error::NotLeader { rank }),
            None => Err(Error::UnknownLearner { learner }),
        }
    }

    /// Returns whether rank 0 may replace the content of a version. It may replace only the version after the
    /// last committed step, because no training depends on it yet.
    pub fn may_supersede(&self, version: PolicyVersion) -> bool {
        version == self.committed.produces()
    }

    /// Returns the versions that a worker or rank may fetch now.
    pub fn needed_versions(&self) -> BTreeSet<PolicyVersion> {
        if self.complete {
            return BTreeSet::new();
        }
        let unfinished = self.open.iter().filter(|(_, blocks)| !blocks.is_full());
        let sampled = unfinished.map(|(work, _)| self.sampled_by(*work));
        sampled.chain([PolicyVersion::START, self.latest]).collect()
    }

    /// Returns whether a version's evaluation is scheduled and not done.
    pub fn awaits_evaluation(&self, version: PolicyVersion) -> bool {
        self.open.contains_key(&Work::Evaluation(version))
    }

    /// Returns the version that samples a piece of work if it is leased now.
    pub(super) fn sampled_by(&self, work: Work) -> PolicyVersion {
        match work {
            // The newest version, unless the step itself produced it: the learner is then about to repeat or
            // commit the step.
            Work::Training(step) => self.latest.min(PolicyVersion(step.0)),
            Work::Evaluation(version) => version,
        }
    }

    /// Returns the version that rank 0 should publish again before it makes `step`: the version that it
    /// holds, else the oldest.
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

    /// Accepts the result of an inspection of all needed versions: those that cannot be served.
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

    /// Accepts a version whose folder is complete and whose manifest is stored.
    pub(super) fn version_published(&mut self, now: Millis, version: PolicyVersion) -> Transition<()> {
        self.transition(now, |machine, effects| machine.publish(version, effects))
    }

    /// Accepts a version whose stored content was replaced, and reopens the work that the old content may
    /// have sampled. The store no longer holds its results.
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

    /// Abandons the evaluation of a version that cannot be produced again; the store records it.
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
        let is_new = version > self.latest;
        self.latest = self.latest.max(version);
        self.open_steps();
        if self.missing.remove(&version) || is_new {
            effects.push(Effect::Wake);
        }
    }
}
