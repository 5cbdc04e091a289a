//! The workers' side: who holds which block until when, and what comes back.

use uuid::Uuid;

use super::blocks::{After, Blocks};
use super::{Action, Error, Filled, Held, Lease, LeaseId, Machine, Millis, Work, Worker};

/// Leases that a worker holds at once: one to sample, and one that it is handing in.
const MOST_LEASES: usize = 2;

/// A worker whose results could not be used so many times gets no more work.
pub const MOST_OFFENCES: u32 = 3;

/// A lease that so many heartbeats of its worker in a row do not name never reached it.
const UNHEARD_AFTER: u32 = 2;

impl Machine {
    pub(super) fn expire(&mut self, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        for id in self.leases.expired(now) {
            self.leases.remove(id);
            actions.extend([Action::LeaseExpired(id), Action::Wake]);
        }
        let silent = |worker: &Worker| worker.last_seen + self.plan.lease_deadline <= now;
        let lost: Vec<Uuid> =
            self.workers.iter().filter(|(_, worker)| silent(worker)).map(|(id, _)| *id).collect();
        for worker in lost {
            self.remove_worker(worker, &mut actions);
            actions.push(Action::WorkerLost(worker));
        }
        actions
    }

    pub(super) fn remove_worker(&mut self, worker: Uuid, actions: &mut Vec<Action>) {
        self.workers.remove(&worker);
        let held: Vec<LeaseId> = self.leases.of_worker(worker).collect();
        for id in held {
            self.leases.remove(id);
            actions.push(Action::Wake);
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Millis,
        worker: Uuid,
        leases: &[LeaseId],
        actions: &mut Vec<Action>,
    ) {
        if !self.workers.contains_key(&worker) {
            actions.push(Action::Refuse(Error::UnknownWorker { worker }));
            return;
        }
        let lost = leases.iter().filter(|&&lease| !self.leases.belongs(lease, worker)).copied().collect();
        actions.push(Action::Lost(lost));
        let deadline = now + self.plan.lease_deadline;
        for id in self.leases.beat(worker, leases, deadline, UNHEARD_AFTER) {
            self.leases.remove(id);
            actions.extend([Action::LeaseExpired(id), Action::Wake]);
        }
    }

    /// Counts an offence of a worker and frees the lease that it was made under; all of its leases with the last offence
    /// that it may make.
    pub(super) fn offend(&mut self, worker: Uuid, lease: Option<LeaseId>, actions: &mut Vec<Action>) {
        let Some(offender) = self.workers.get_mut(&worker) else { return };
        offender.offences += 1;
        let expelled = offender.offences >= MOST_OFFENCES;
        let freed: Vec<LeaseId> =
            self.leases.of_worker(worker).filter(|id| expelled || lease == Some(*id)).collect();
        for id in freed {
            self.leases.remove(id);
            actions.push(Action::Wake);
        }
    }

    /// Times that results of a registered worker could not be used.
    pub fn offences(&self, worker: Uuid) -> u32 {
        self.workers.get(&worker).map_or(0, |worker| worker.offences)
    }

    /// Whether results of a worker are taken.
    pub fn check_worker(&self, worker: Uuid) -> Result<(), Error> {
        match self.workers.get(&worker).ok_or(Error::UnknownWorker { worker })?.offences {
            offences if offences >= MOST_OFFENCES => Err(Error::Expelled { worker, offences }),
            _ => Ok(()),
        }
    }

    pub(super) fn lease(&mut self, now: Millis, worker: Uuid) -> Action {
        if !self.workers.contains_key(&worker) {
            return Action::Refuse(Error::UnknownWorker { worker });
        }
        if let Some(reason) = self.over() {
            return Action::Leave { reason };
        }
        if let Err(error) = self.check_worker(worker) {
            return Action::Refuse(error);
        }
        if self.leases.of_worker(worker).count() >= MOST_LEASES {
            return Action::Wait;
        }
        let Some((work, block)) = self.free_block() else { return Action::Wait };
        let deadline = now + self.plan.lease_deadline;
        let id = self.leases.grant(Held { worker, work, block, granted: now, deadline, unmentioned: 0 });
        let (attempt, indices) = self.open.get(&work).map(|blocks| blocks.batch(block)).unwrap_or_default();
        let slots = indices.into_iter().map(|index| work.slot(index, attempt)).collect();
        let version = self.sampled_by(work);
        Action::Grant(Lease { id, work, version, slots, deadline: self.plan.lease_deadline })
    }

    fn free_block(&self) -> Option<(Work, u32)> {
        // The learner waits for the step being made, people for evaluations, and nobody yet for the steps after it.
        let urgency = |work: &Work| match work {
            Work::Training(step) if *step == self.committed => 0,
            Work::Evaluation(_) => 1,
            Work::Training(_) => 2,
        };
        let served = |(work, _): &(&Work, &Blocks)| !self.missing.contains(&self.sampled_by(**work));
        let mut open: Vec<(&Work, &Blocks)> = self.open.iter().filter(served).collect();
        open.sort_by_key(|(work, _)| urgency(work));
        open.into_iter().find_map(|(&work, blocks)| {
            let block = blocks.unfinished().find(|&block| !self.leases.is_leased(work, block))?;
            Some((work, block))
        })
    }

    pub(super) fn fill(
        &mut self,
        now: Millis,
        (worker, lease): (Uuid, Option<LeaseId>),
        filled: &[Filled],
        actions: &mut Vec<Action>,
    ) {
        if let Some(lease) = lease.filter(|&lease| self.leases.belongs(lease, worker)) {
            self.leases.submitted(lease, now);
        }
        for &Filled { slot, zero_variance } in filled {
            let (work, index, attempt) = Work::of(slot);
            let Some(blocks) = self.open.get_mut(&work) else { continue };
            let after = blocks.fill(index, attempt, zero_variance);
            if after == After::Nothing {
                continue;
            }
            self.leases.remove_block(work, blocks.block_of(index));
            if after == After::NextAttempt || blocks.is_full() {
                actions.push(Action::Wake);
            }
        }
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.slots_done += filled.len() as u64;
        }
        // Handed in with slots missing: somebody else may try.
        if let Some(lease) = lease.filter(|&lease| self.leases.belongs(lease, worker)) {
            self.leases.remove(lease);
            actions.push(Action::Wake);
        }
    }
}
