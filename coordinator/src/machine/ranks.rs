//! The learner's side: ranks that join, steps that are served and committed, checkpoints that let groups go.

use podium_grpo::Step;
use uuid::Uuid;

use super::{Action, Blocks, Error, Join, Machine, Work};

impl Machine {
    pub(super) fn join(&mut self, join: Join, actions: &mut Vec<Action>) {
        let (rank, before) = (join.rank, (self.world.generation(), self.world.is_complete()));
        match self.world.join(join) {
            Ok(standing) => {
                let after = (standing.generation, standing.complete);
                actions.push(Action::Standing(standing));
                if after.0 != before.0 {
                    actions.push(Action::KeepWorld);
                }
                // Not at every join: ranks that wait for each other would wake each other without end.
                if after != before {
                    actions.push(Action::Wake);
                }
                self.ranks_told.remove(&rank);
            }
            Err(error) => actions.push(Action::Refuse(error)),
        }
    }

    pub(super) fn batch(&mut self, rank: u32, learner: Uuid, step: Step) -> Action {
        let asked = rank == 0 && self.draining.is_none();
        let republish = asked.then(|| self.to_republish(step)).flatten();
        if self.draining.is_some() || (step.0 >= self.last_version().0 && republish.is_none()) {
            self.ranks_told.insert(rank);
            let reason = self.draining.as_deref().or(self.ended()).unwrap_or("all steps are done").to_owned();
            return Action::Leave { reason };
        }
        if !self.world.ask(rank, learner) {
            return Action::Rejoin;
        }
        if step < self.kept_from {
            return Action::Refuse(Error::StepGone { step, kept_from: self.kept_from });
        }
        // A rank other than 0 may be a step ahead of rank 0's commit.
        if step > self.committed.next() {
            return Action::Refuse(Error::StepAhead { step, committed: self.committed });
        }
        if let Some(version) = republish {
            return Action::Republish { version, first_step: self.kept_from };
        }
        // A later step may be full already, but its turn comes with the commit of the one before.
        let full = || self.open.get(&Work::Training(step)).is_some_and(Blocks::is_full);
        let there = step < self.committed || (step == self.committed && full());
        if there { Action::ServeBatch } else { Action::Wait }
    }

    pub(super) fn commit(&mut self, step: Step, actions: &mut Vec<Action>) {
        if step != self.committed {
            return;
        }
        self.open.remove(&Work::Training(step));
        self.reopened.clear();
        self.committed = step.next();
        self.latest = self.latest.max(step.produces());
        self.open_steps();
        self.open_evaluation(step.produces());
        actions.push(Action::Wake);
    }

    pub(super) fn keep_checkpoint(&mut self, rank: u32, step: Step, actions: &mut Vec<Action>) {
        let kept = self.checkpoints.entry(rank).or_insert(step);
        *kept = step.max(*kept);
        let ranks = 0..self.world.size();
        let common = ranks.map(|rank| self.checkpoints.get(&rank).copied().unwrap_or(Step(0))).min();
        // Groups of the step being made are not covered by anything yet.
        let before = common.unwrap_or(Step(0)).min(self.committed);
        if before > self.kept_from {
            self.kept_from = before;
            actions.push(Action::DropGroups { before });
        }
    }
}
