//! The learner in the simulation.

use super::*;
use crate::machine::sequencer::{Commit, Reply, Report, Unusable};

impl Simulation {
    pub(super) fn rank_turn(&mut self, which: usize) {
        if self.happens(30) {
            let id = self.process();
            self.restart_rank(which, id);
            return;
        }
        if let Some(step) = self.ranks[which].finishing {
            self.finish(which, step);
            return;
        }
        let learner = self.ranks[which].id;
        let Some((epoch, next)) = self.ranks[which].joined else {
            self.join(which);
            return;
        };
        if !self.ranks[which].has_batch {
            self.request_batch(which, next);
            return;
        }
        // The collective: either all ranks of the epoch have their shares, or one is missing.
        if self.ranks.iter().any(|rank| rank.joined.is_none_or(|(other, _)| other != epoch)) {
            self.restart_rank(which, learner);
        } else if self.ranks.iter().all(|rank| rank.has_batch && rank.joined == Some((epoch, next))) {
            let disk = self.run.storage();
            let indices = 0..self.schedule.prompts_per_step;
            let batch: Vec<Content> = indices.map(|index| disk.group(next, index)).collect();
            if batch.iter().any(|group| group.unusable) {
                self.set_aside(next, &batch);
                return;
            }
            assert!(batch.iter().all(|group| self.schedule.allows(Step(next), group.version)), "{batch:?}");
            assert_eq!(self.trained.entry(next).or_insert_with(|| batch.clone()), &batch);
            for rank in &mut self.ranks {
                rank.has_batch = false;
                rank.finishing = Some(next);
            }
        }
    }

    fn restart_rank(&mut self, which: usize, id: Uuid) {
        let checkpoints = std::mem::take(&mut self.ranks[which].checkpoints);
        self.ranks[which] = Rank { id, checkpoints, ..Rank::default() };
    }

    fn request_batch(&mut self, which: usize, next: u64) {
        let (rank, learner) = (which as u32, self.ranks[which].id);
        let request =
            async |run: &mut Sequencer<Disk>, now| run.request_batch(now, rank, learner, Step(next)).await;
        // The coordinator also closes a step if the reply does not reach the rank.
        match self.call(request) {
            Some(Ok(Reply::Ready(BatchReply::Ready { .. }))) => self.ranks[which].has_batch = true,
            Some(Ok(Reply::Ready(BatchReply::Rejoin))) => self.ranks[which].joined = None,
            Some(Err(error)) => panic!("rank {which} was refused: {error}"),
            _ => {}
        }
        self.begin_close();
    }

    /// Reports unusable groups of a step, on which all ranks agree. Each rank reports its own groups, some
    /// twice, and requests the step again.
    fn set_aside(&mut self, step: u64, batch: &[Content]) {
        let world_size = self.ranks.len() as u32;
        for rank in 0..self.ranks.len() {
            let of_rank = |slot: &(u32, u32)| slot.0 % world_size == rank as u32;
            let unusable = batch.iter().filter(|group| group.unusable).map(|group| Work::of(group.slot));
            let slots = unusable.map(|(_, index, attempt)| (index, attempt)).filter(of_rank);
            let group = |(index, attempt)| Unusable { index, attempt, cause: "not finite".into() };
            let groups: Vec<Unusable> = slots.map(group).collect();
            self.ranks[rank].has_batch = false;
            let (learner, id) = (self.ranks[rank].id, self.process());
            let report = Report { learner, id, step: Step(step), groups };
            for _ in 0..=u64::from(self.happens(2)) {
                let report = report.clone();
                let reply = self.ask(async |run, now| run.set_aside(now, report).await);
                if let Some(reply) = reply {
                    let Ok(Reply::Ready(aside)) = reply else { panic!("rank {rank} was refused: {reply:?}") };
                    self.set_aside += aside.new.len() as u32;
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
        let reply = self.call(async |run, now| Ok(run.apply(|machine| machine.join(now, join)).await?));
        if let Some(Ok(Rendezvous { complete: true, epoch, .. })) = reply {
            let newest = |rank: &Rank| rank.checkpoints[rank.checkpoints.len() - 1];
            // The ranks agree through the collective. Ranks of the epoch that have arrived determine the
            // first step. A rank that has trained a step in it is past the rendezvous, so the collective
            // fails.
            let agreed = self.ranks.iter().find(|rank| rank.joined.is_some_and(|(other, _)| other == epoch));
            if agreed.is_some_and(|rank| rank.finishing.is_some()) {
                return;
            }
            let agreed = agreed.and_then(|rank| rank.joined);
            let start =
                agreed.map_or_else(|| self.ranks.iter().map(newest).min().unwrap(), |(_, start)| start);
            self.ranks[which].joined = Some((epoch, start));
        }
    }

    fn finish(&mut self, which: usize, step: u64) {
        let learner = self.ranks[which].id;
        if which == 0 && !self.publish(learner, Step(step).produces()) {
            return;
        }
        let is_due = (step + 1).is_multiple_of(CHECKPOINT_EVERY) || step + 1 == self.schedule.steps;
        let rank = &mut self.ranks[which];
        if is_due && rank.checkpoints.last() != Some(&(step + 1)) {
            rank.checkpoints.retain(|&kept| kept < step + 1);
            rank.checkpoints.push(step + 1);
            let older = rank.checkpoints.len().saturating_sub(2);
            rank.checkpoints.drain(..older);
        }
        if self.happens(8) {
            // The rank died between checkpoint and commit, or the request was lost.
            return;
        }
        let commit = Commit { learner, step: Step(step), checkpoint: is_due.then_some(Step(step + 1)) };
        match self.ask(async |run, now| run.commit(now, commit).await) {
            Some(Ok(Reply::Ready(_))) => {
                assert!(which > 0 || self.run.storage().commits().contains(&step), "told before durable");
                let rank = &mut self.ranks[which];
                rank.finishing = None;
                rank.joined = rank.joined.map(|(epoch, _)| (epoch, step + 1));
            }
            Some(Err(Error::UnknownLearner { .. })) => self.forget(which),
            // A rank other than 0 may be ahead of rank 0's commit.
            Some(Ok(Reply::Close(_) | Reply::Wait) | Err(Error::StepAhead { .. })) | None => {}
            Some(Err(error)) => panic!("rank {which} could not commit: {error}"),
        }
        self.begin_close();
    }

    /// Publishes a version; returns `false` if the rank must try again.
    fn publish(&mut self, learner: Uuid, version: PolicyVersion) -> bool {
        match self.run.check_publisher(learner) {
            Ok(Reply::Ready(())) => {}
            Ok(_) => return false,
            Err(_) => {
                self.forget(0);
                return false;
            }
        }
        if self.run.machine().check_publish(version).is_err() || self.happens(10) {
            return false;
        }
        let manifest = podium_proto::v1::PolicyManifest { policy_version: version.0, ..Default::default() };
        self.ask(async |run, now| run.publish(now, manifest).await).is_some()
    }

    /// Resets a rank that the coordinator does not know: it must join again.
    fn forget(&mut self, which: usize) {
        self.ranks[which].finishing = None;
        self.ranks[which].joined = None;
    }
}
