//! What the machine would take: asked before something is made durable, so that only what fits is.

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::Slot;
use uuid::Uuid;

use super::blocks::{Blocks, Stand};
use super::{Error, LeaseId, Machine, Verdict, Work};

impl Machine {
    /// What would become of a result for `slot` that `version` sampled.
    pub fn verdict(&self, slot: Slot, version: PolicyVersion) -> Verdict {
        let (work, index, attempt) = Work::of(slot);
        let plan = &self.plan;
        if !self.may_sample(work, version) || index >= plan.slots(work) || attempt > plan.refills(work) {
            return Verdict::Refused;
        }
        let done = match work {
            Work::Training(step) => step < self.committed,
            Work::Evaluation(version) => self.evaluated.contains(&version),
        };
        match self.open.get(&work).map(|blocks| blocks.stand(index, attempt)) {
            Some(Stand::Wanted) => Verdict::Wanted,
            Some(Stand::Filled) => Verdict::Repeated,
            None if done => Verdict::Repeated,
            Some(Stand::Closed) | None => Verdict::Refused,
        }
    }

    /// The same for a result that is submitted under a lease. Once a block was taken back, its later attempts may have other
    /// batches than before: results of it are taken under a lease that is held on it, and from nobody else.
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
            Work::Training(step) => version <= self.latest && self.plan.allows(step, version),
            Work::Evaluation(evaluated) => version == evaluated,
        }
    }

    /// The rank that commits `step`, and whether its commit moves the run on: a repeated one does not, nor does one of a
    /// rank other than 0.
    pub fn check_commit(&self, learner: Uuid, step: Step) -> Result<(u32, bool), Error> {
        let rank = self.world.rank_of(learner).ok_or(Error::UnknownLearner { learner })?;
        if step > self.committed {
            return Err(Error::StepAhead { step, committed: self.committed });
        }
        if step < self.committed || rank != 0 {
            return Ok((rank, false));
        }
        let wanted = self.plan.slots(Work::Training(step));
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

    /// The step whose commit never arrived, where rank 0 already asks for the one after it: its checkpoint was written,
    /// and it died before it could say so.
    pub fn missed_commit(&self, rank: u32, learner: Uuid, step: Step) -> Option<Step> {
        let missed = self.committed;
        let fresh = self.check_commit(learner, missed).is_ok_and(|(_, fresh)| fresh);
        (rank == 0 && step == missed.next() && fresh).then_some(missed)
    }

    /// Whether a version may be published now: at most the one that the step being made produces.
    pub fn check_publish(&self, version: PolicyVersion) -> Result<(), Error> {
        if version <= self.committed.produces() && version <= self.last_version() {
            Ok(())
        } else {
            Err(Error::VersionAhead { version, committed: self.committed })
        }
    }
}
