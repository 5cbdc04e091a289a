//! The learner's side of the simulation.

use super::*;

impl Simulation {
    pub(super) fn rank_turn(&mut self, which: usize) {
        if self.happens(30) {
            let id = self.process();
            let checkpoints = std::mem::take(&mut self.ranks[which].checkpoints);
            self.ranks[which] = Rank { id, checkpoints, ..Rank::default() };
            return;
        }
        if let Some(step) = self.ranks[which].finishing {
            self.finish(which, step);
            return;
        }
        let learner = self.ranks[which].id;
        let Some((generation, next)) = self.ranks[which].in_world else {
            self.join(which);
            return;
        };
        let batch = Event::BatchWanted { rank: which as u32, learner, step: Step(next) };
        if !self.ranks[which].has_batch {
            if let Some(missed) = self.machine.missed_commit(which as u32, learner, Step(next)) {
                self.commit(missed.0);
            }
            match self.call(batch) {
                Some(Action::ServeBatch) => self.ranks[which].has_batch = true,
                Some(Action::Rejoin) => self.ranks[which].in_world = None,
                Some(Action::Refuse(error)) => panic!("rank {which} was refused: {error}"),
                _ => {}
            }
            return;
        }
        // The collective: all ranks of the generation have their shares, or one is missing.
        if self.ranks.iter().any(|rank| rank.in_world.is_none_or(|(other, _)| other != generation)) {
            self.ranks[which] = Rank {
                id: learner,
                checkpoints: std::mem::take(&mut self.ranks[which].checkpoints),
                ..Rank::default()
            };
        } else if self.ranks.iter().all(|rank| rank.has_batch && rank.in_world == Some((generation, next))) {
            let group = |index| self.disk.contents[&(Work::Training(Step(next)), index)].clone();
            let batch: Vec<Content> = (0..self.plan.prompts_per_step).map(group).collect();
            if batch.iter().any(|group| group.unusable) {
                self.set_aside(next, &batch);
                return;
            }
            assert!(batch.iter().all(|group| self.plan.allows(Step(next), group.version)), "{batch:?}");
            assert_eq!(self.trained.entry(next).or_insert_with(|| batch.clone()), &batch);
            for rank in &mut self.ranks {
                rank.has_batch = false;
                rank.finishing = Some(next);
            }
        }
    }

    /// All ranks agree that groups of a step are unusable. Each reports its own, some twice, and asks for the step again.
    fn set_aside(&mut self, step: u64, batch: &[Content]) {
        let world_size = self.ranks.len() as u32;
        for rank in 0..self.ranks.len() {
            let of_rank = |slot: &(u32, u32)| slot.0 % world_size == rank as u32;
            let unusable = batch.iter().filter(|group| group.unusable).map(|group| Work::of(group.slot));
            let slots: Vec<(u32, u32)> =
                unusable.map(|(_, index, attempt)| (index, attempt)).filter(of_rank).collect();
            let learner = self.ranks[rank].id;
            self.ranks[rank].has_batch = false;
            for _ in 0..=u64::from(self.happens(2)) {
                let reopening = self.machine.reopening(learner, Step(step), &slots).unwrap();
                let work = Work::Training(Step(step));
                for &(index, last) in &reopening.removed {
                    self.disk.contents.remove(&(work, index));
                    if let Some(attempt) = last {
                        let stub = Content::stub(work.slot(index, attempt));
                        self.disk.contents.insert((work, index), stub);
                    }
                }
                self.set_aside += reopening.slots.len() as u32;
                self.disk.reopened.extend(reopening.slots.iter().map(|slot| (step, slot.0)));
                // Not if the coordinator dies in between: it is restored with what the disk says.
                if self.happens(4) {
                    self.coordinator_restarts();
                } else {
                    self.event(Event::Reopened { step: Step(step), slots: reopening.slots });
                }
            }
        }
    }

    fn join(&mut self, which: usize) {
        let Rank { id: learner, checkpoints, .. } = &self.ranks[which];
        let (learner, next_step) = (*learner, checkpoints[checkpoints.len() - 1]);
        let world_size = self.ranks.len() as u32;
        let address = if which == 0 { learner.to_string() } else { String::new() };
        let join = Join { learner, rank: which as u32, world_size, address, next_step, ..Join::default() };
        if let Some(Action::Standing(Standing { complete: true, generation, .. })) =
            self.call(Event::RankJoined(join))
        {
            let newest = |rank: &Rank| rank.checkpoints[rank.checkpoints.len() - 1];
            // The ranks agree through the collective; those that have the generation already said where they start.
            let agreed = self.ranks.iter().filter_map(|rank| rank.in_world).find(|(g, _)| *g == generation);
            let start =
                agreed.map_or_else(|| self.ranks.iter().map(newest).min().unwrap(), |(_, start)| start);
            self.ranks[which].in_world = Some((generation, start));
        }
    }

    fn finish(&mut self, which: usize, step: u64) {
        if which == 0 {
            let version = Step(step).produces();
            if self.machine.check_publish(version).is_err() || self.happens(10) {
                return;
            }
            self.disk.recovered.latest = self.disk.recovered.latest.max(version.0);
            self.event(Event::VersionPublished { version });
        }
        let checkpoint = (step + 1).is_multiple_of(CHECKPOINT_EVERY) || step + 1 == self.plan.steps;
        let rank = &mut self.ranks[which];
        if checkpoint && rank.checkpoints.last() != Some(&(step + 1)) {
            rank.checkpoints.retain(|&kept| kept < step + 1);
            rank.checkpoints.push(step + 1);
            let older = rank.checkpoints.len().saturating_sub(2);
            rank.checkpoints.drain(..older);
        }
        if self.happens(8) {
            // Died between checkpoint and commit, or the request was lost.
            return;
        }
        match self.machine.check_commit(self.ranks[which].id, Step(step)) {
            Ok((_, fresh)) => {
                if fresh {
                    self.commit(step);
                }
                if checkpoint {
                    let kept = self.disk.recovered.checkpoints.entry(which as u32).or_insert(Step(0));
                    *kept = (*kept).max(Step(step + 1));
                    self.event(Event::CheckpointKept { rank: which as u32, step: Step(step + 1) });
                }
                let rank = &mut self.ranks[which];
                rank.finishing = None;
                rank.in_world = rank.in_world.map(|(generation, _)| (generation, step + 1));
            }
            Err(Error::UnknownLearner { .. }) => {
                self.ranks[which].finishing = None;
                self.ranks[which].in_world = None;
            }
            Err(Error::StepAhead { .. }) => {}
            Err(error) => panic!("rank {which} could not commit: {error}"),
        }
    }

    fn commit(&mut self, step: u64) {
        self.commits.push(step);
        self.disk.recovered.committed = step + 1;
        self.event(Event::StepCommitted { step: Step(step) });
    }
}
