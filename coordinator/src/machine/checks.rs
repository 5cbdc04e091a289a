//! Checks before data is stored, so that the store contains only data that the machine accepts.

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::Slot;
use uuid::Uuid;

use super::blocks::{AttemptState, Blocks};
use super::{Error, LeaseId, Machine, Verdict, Work};

impl Machine {
    /// Returns the verdict on a result for `slot` that `version` sampled.
    pub fn verdict(&self, slot: Slot, version: PolicyVersion) -> Verdict {
        let (work, index, attempt) = Work::of(slot);
        let schedule = &self.schedule;
        if !self.may_sample(work, version)
            || index >= schedule.slots(work)
            || attempt > schedule.refills(work)
        {
            return Verdict::Refused;
        }
        let done = match work {
            Work::Training(step) => step < self.committed,
            Work::Evaluation(version) => self.evaluated.contains(&version),
        };
        match self.open.get(&work).map(|blocks| blocks.attempt_state(index, attempt)) {
            Some(AttemptState::Wanted) => Verdict::Wanted,
            Some(AttemptState::Filled) => Verdict::Repeated,
            None if done => Verdict::Repeated,
            Some(AttemptState::Closed) | None => Verdict::Refused,
        }
    }

    /// Returns the verdict on a result that is submitted under a lease. After slots of a block were reopened,
    /// its later attempts may have other batches than before, so only results under a current lease on the
    /// block are accepted.
    pub fn verdict_under(&self, slot: Slot, version: PolicyVersion, lease: Option<LeaseId>) -> Verdict {
        let (work, index, _) = Work::of(slot);
        let verdict = self.verdict(slot, version);
        let block = self.open.get(&work).map_or(0, |blocks| blocks.block_of(index));
        let is_held = || lease.is_some_and(|lease| self.leases.is_on(lease, work, block));
        if verdict == Verdict::Wanted && self.was_reopened(work, block) && !is_held() {
            return Verdict::Refused;
        }
        verdict
    }

    fn may_sample(&self, work: Work, version: PolicyVersion) -> bool {
        match work {
            Work::Training(step) => version <= self.latest && self.schedule.allows(step, version),
            Work::Evaluation(evaluated) => version == evaluated,
        }
    }

    /// Returns the rank that commits `step`, and whether its commit advances the run. A repeated commit and a
    /// commit of a rank other than 0 do not advance it.
    pub fn check_commit(&self, learner: Uuid, step: Step) -> Result<(u32, bool), Error> {
        let rank = self.ranks.rank_of(learner).ok_or(Error::UnknownLearner { learner })?;
        if step > self.committed {
            return Err(Error::StepAhead { step, committed: self.committed });
        }
        if step < self.committed || rank != 0 {
            return Ok((rank, false));
        }
        let wanted = self.schedule.slots(Work::Training(step));
        let ready = self.open.get(&Work::Training(step)).map_or(0, Blocks::settled);
        if ready < wanted {
            return Err(Error::NotSampled { step, ready, wanted });
        }
        let version = step.produces();
        if self.latest < version {
            return Err(Error::NotPublished { step, version });
        }
        Ok((rank, true))
    }

    /// Returns the step whose commit was lost, if rank 0 already requests the step after it. Rank 0 then
    /// wrote its checkpoint and died before the commit.
    pub fn missed_commit(&self, rank: u32, learner: Uuid, step: Step) -> Option<Step> {
        let missed = self.committed;
        let fresh = self.check_commit(learner, missed).is_ok_and(|(_, fresh)| fresh);
        (rank == 0 && step == missed.next() && fresh).then_some(missed)
    }

    /// Checks that a version may be published now: at most the version that the current step produces.
    pub fn check_publish(&self, version: PolicyVersion) -> Result<(), Error> {
        if version <= self.committed.produces() && version <= self.last_version() {
            Ok(())
        } else {
            Err(Error::VersionAhead { version, committed: self.committed })
        }
    }
}
