//! The learner's ranks: joining, batches, commits and checkpoints.

use podium_grpo::Step;
use uuid::Uuid;

use super::blocks::Blocks;
use super::{BatchReply, Effect, Error, Join, Machine, Millis, Rendezvous, Transition, Work};

impl Machine {
    /// Adds a rank to the rank group, or reports to a rank that has joined whether all ranks have.
    pub fn join(&mut self, now: Millis, join: Join) -> Transition<Result<Rendezvous, Error>> {
        self.ranks_heard.insert(join.rank, now);
        self.transition(now, |machine, effects| {
            let (rank, before) = (join.rank, (machine.ranks.epoch(), machine.ranks.is_complete()));
            let rendezvous = machine.ranks.join(join)?;
            let after = (rendezvous.epoch, rendezvous.complete);
            if after.0 != before.0 {
                effects.push(Effect::StoreRankGroup);
            }
            // Not at every join: ranks that wait for each other would wake each other endlessly.
            if after != before {
                effects.push(Effect::Wake);
            }
            machine.dismissed.remove(&rank);
            Ok(rendezvous)
        })
    }

    /// Answers a rank that requests its share of `step`.
    pub fn request_batch(
        &mut self,
        now: Millis,
        rank: u32,
        learner: Uuid,
        step: Step,
    ) -> Transition<Result<BatchReply, Error>> {
        self.hear_learner(now, learner);
        self.transition(now, |machine, _| machine.batch(rank, learner, step))
    }

    /// Records that a rank is alive.
    pub fn rank_alive(&mut self, now: Millis, learner: Uuid) -> Transition<()> {
        self.hear_learner(now, learner);
        self.transition(now, |_, _| ())
    }

    /// Records that a rank was notified of the end of the run.
    pub fn dismiss_rank(&mut self, now: Millis, rank: u32) -> Transition<()> {
        self.transition(now, |machine, _| {
            machine.dismissed.insert(rank);
        })
    }

    /// Commits a step whose record is stored. [`Machine::check_commit`] allowed it.
    pub(super) fn step_committed(&mut self, now: Millis, step: Step) -> Transition<()> {
        self.transition(now, |machine, effects| {
            if step != machine.committed {
                return;
            }
            machine.open.remove(&Work::Training(step));
            machine.reopened.clear();
            machine.committed = step.next();
            machine.latest = machine.latest.max(step.produces());
            machine.open_steps();
            machine.open_evaluation(step.produces());
            effects.push(Effect::Wake);
        })
    }

    /// Accepts the stored fact that a checkpoint of a rank covers every step before `step`.
    pub(super) fn checkpoint_stored(&mut self, now: Millis, rank: u32, step: Step) -> Transition<()> {
        self.transition(now, |machine, effects| {
            let kept = machine.checkpoints.entry(rank).or_insert(step);
            *kept = step.max(*kept);
            let ranks = 0..machine.ranks.size();
            let covered = ranks.map(|rank| machine.checkpoints.get(&rank).copied().unwrap_or(Step(0))).min();
            // No checkpoint covers the groups of the current step yet.
            let before = covered.unwrap_or(Step(0)).min(machine.committed);
            if before > machine.kept_from {
                machine.kept_from = before;
                effects.push(Effect::DropGroups { before });
            }
        })
    }

    fn hear_learner(&mut self, now: Millis, learner: Uuid) {
        if let Some(rank) = self.rank_of(learner) {
            self.ranks_heard.insert(rank, now);
        }
    }

    fn batch(&mut self, rank: u32, learner: Uuid, step: Step) -> Result<BatchReply, Error> {
        let may_republish = rank == 0 && self.draining.is_none();
        let republish = may_republish.then(|| self.to_republish(step)).flatten();
        if self.draining.is_some() || (step.0 >= self.last_version().0 && republish.is_none()) {
            self.dismissed.insert(rank);
            let reason = self.draining.as_deref().or(self.ended()).unwrap_or("all steps are done").to_owned();
            return Ok(BatchReply::RunOver(reason));
        }
        if !self.ranks.request(rank, learner) {
            return Ok(BatchReply::Rejoin);
        }
        if step < self.kept_from {
            return Err(Error::StepGone { step, kept_from: self.kept_from });
        }
        // A rank other than 0 may be a step ahead of rank 0's commit.
        if step > self.committed.next() {
            return Err(Error::StepAhead { step, committed: self.committed });
        }
        if let Some(version) = republish {
            return Ok(BatchReply::Republish { version, first_step: self.kept_from });
        }
        // A later step may be full already, but it is not due before the commit of the step before it.
        let full = || self.open.get(&Work::Training(step)).is_some_and(Blocks::is_full);
        let ready = step < self.committed || (step == self.committed && full());
        Ok(if ready { BatchReply::Ready { world_size: self.ranks.size() } } else { BatchReply::NotReady })
    }
}
