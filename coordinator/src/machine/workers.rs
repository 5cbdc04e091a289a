//! The workers: registration, leases, and results.

use uuid::Uuid;

use super::blocks::{AfterFill, Blocks};
use super::leases::Held;
use super::{Effect, Error, Lease, LeaseId, LeaseReply, Machine, Millis, Transition, Work, Worker};
use crate::results::Filled;

/// Maximum number of leases per worker: one to sample, and one whose results are being submitted.
const MAX_LEASES: usize = 2;

/// A worker with this many offences gets no more leases.
pub const MAX_OFFENCES: u32 = 3;

/// A lease that this many consecutive heartbeats omit never reached its worker.
const UNMENTIONED_LIMIT: u32 = 2;

impl Machine {
    /// Registers a worker of this run, also after the worker was lost.
    pub fn register_worker(&mut self, now: Millis, worker: Uuid) -> Transition<()> {
        self.hear_worker(now, worker);
        self.transition(now, |machine, _| {
            machine.workers.entry(worker).or_insert(Worker { last_seen: now, slots_done: 0, offences: 0 });
            machine.workers_expire = machine.workers_expire.min(now + machine.schedule.lease_deadline);
        })
    }

    /// Removes a worker that disconnects, and frees its leases.
    pub fn disconnect_worker(&mut self, now: Millis, worker: Uuid) -> Transition<()> {
        self.transition(now, |machine, effects| machine.remove_worker(worker, effects))
    }

    /// Renews the leases that a worker reports, and returns those that it no longer holds.
    pub fn heartbeat(
        &mut self,
        now: Millis,
        worker: Uuid,
        named: &[LeaseId],
    ) -> Transition<Result<Vec<LeaseId>, Error>> {
        self.hear_worker(now, worker);
        self.transition(now, |machine, effects| {
            if !machine.workers.contains_key(&worker) {
                return Err(Error::UnknownWorker { worker });
            }
            let deadline = now + machine.schedule.lease_deadline;
            for id in machine.leases.beat(worker, named, deadline, UNMENTIONED_LIMIT) {
                machine.leases.remove(id);
                effects.extend([Effect::LeaseExpired(id), Effect::Wake]);
            }
            Ok(named.iter().copied().filter(|&id| !machine.leases.belongs(id, worker)).collect())
        })
    }

    /// Leases the most urgent free block to a worker.
    pub fn request_lease(&mut self, now: Millis, worker: Uuid) -> Transition<Result<LeaseReply, Error>> {
        self.hear_worker(now, worker);
        self.transition(now, |machine, _| machine.lease(now, worker))
    }

    /// Counts an offence of a worker whose results are unusable. Frees the lease that they were submitted
    /// under, or all leases of a worker that gets no more. Returns the number of offences of a registered
    /// worker.
    pub fn record_offence(&mut self, now: Millis, worker: Uuid, lease: Option<LeaseId>) -> Transition<u32> {
        if lease.is_some() {
            self.hear_worker(now, worker);
        }
        self.transition(now, |machine, effects| {
            let Some(offender) = machine.workers.get_mut(&worker) else { return 0 };
            offender.offences += 1;
            let offences = offender.offences;
            let is_freed = |id: &LeaseId| offences >= MAX_OFFENCES || lease == Some(*id);
            let freed: Vec<LeaseId> = machine.leases.of_worker(worker).filter(is_freed).collect();
            for id in freed {
                machine.leases.remove(id);
                effects.push(Effect::Wake);
            }
            offences
        })
    }

    /// Accepts stored results that [`Machine::verdict_under`] wanted.
    pub(super) fn results_stored(
        &mut self,
        now: Millis,
        (worker, lease): (Uuid, Option<LeaseId>),
        filled: &[Filled],
    ) -> Transition<()> {
        self.hear_worker(now, worker);
        self.transition(now, |machine, effects| machine.fill(now, (worker, lease), filled, effects))
    }

    /// Checks that a worker is registered and may submit results.
    pub fn check_worker(&self, worker: Uuid) -> Result<(), Error> {
        match self.workers.get(&worker).ok_or(Error::UnknownWorker { worker })?.offences {
            offences if offences >= MAX_OFFENCES => Err(Error::Expelled { worker, offences }),
            _ => Ok(()),
        }
    }

    /// Expires leases that were not renewed, and removes workers that have not called.
    pub(super) fn expire(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        for id in self.leases.expired(now) {
            self.leases.remove(id);
            effects.extend([Effect::LeaseExpired(id), Effect::Wake]);
        }
        if now >= self.workers_expire {
            self.expire_workers(now, effects);
        }
    }

    fn expire_workers(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let deadline = |worker: &Worker| worker.last_seen + self.schedule.lease_deadline;
        let (lost, others): (Vec<_>, Vec<_>) =
            self.workers.iter().partition(|(_, worker)| deadline(worker) <= now);
        let first = others.into_iter().map(|(_, worker)| deadline(worker)).min();
        let lost: Vec<Uuid> = lost.into_iter().map(|(id, _)| *id).collect();
        self.workers_expire = first.unwrap_or(Millis(u64::MAX));
        for worker in lost {
            self.remove_worker(worker, effects);
            effects.push(Effect::WorkerLost(worker));
        }
    }

    fn hear_worker(&mut self, now: Millis, worker: Uuid) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.last_seen = now;
        }
    }

    fn remove_worker(&mut self, worker: Uuid, effects: &mut Vec<Effect>) {
        self.workers.remove(&worker);
        let held: Vec<LeaseId> = self.leases.of_worker(worker).collect();
        for id in held {
            self.leases.remove(id);
            effects.push(Effect::Wake);
        }
    }

    fn lease(&mut self, now: Millis, worker: Uuid) -> Result<LeaseReply, Error> {
        if !self.workers.contains_key(&worker) {
            return Err(Error::UnknownWorker { worker });
        }
        if let Some(reason) = self.over() {
            return Ok(LeaseReply::RunOver(reason));
        }
        self.check_worker(worker)?;
        if self.leases.of_worker(worker).count() >= MAX_LEASES {
            return Ok(LeaseReply::Idle);
        }
        let Some((work, block)) = self.free_block() else { return Ok(LeaseReply::Idle) };
        let deadline = now + self.schedule.lease_deadline;
        let id = self.leases.grant(Held { worker, work, block, granted: now, deadline, unmentioned: 0 });
        let (attempt, indices) = self.open.get(&work).map(|blocks| blocks.batch(block)).unwrap_or_default();
        let slots = indices.into_iter().map(|index| work.slot(index, attempt)).collect();
        let version = self.sampled_by(work);
        Ok(LeaseReply::Granted(Lease { id, work, version, slots, deadline: self.schedule.lease_deadline }))
    }

    fn free_block(&self) -> Option<(Work, u32)> {
        // The learner waits for the current step, and soon for the next one if its version is published. Users
        // wait for evaluations; nothing waits for later steps yet.
        let urgency = |work: &Work| match work {
            Work::Training(step) if step.0 <= self.latest.0 => 0,
            Work::Evaluation(_) => 1,
            Work::Training(_) => 2,
        };
        let served = |(work, _): &(&Work, &Blocks)| !self.missing.contains(&self.sampled_by(**work));
        let mut open: Vec<(&Work, &Blocks)> = self.open.iter().filter(served).collect();
        open.sort_by_key(|(work, _)| urgency(work));
        open.into_iter().find_map(|(&work, blocks)| {
            let mut leased = self.leases.leased_blocks(work).peekable();
            // Both are in order.
            let mut is_leased = |block: u32| {
                while leased.next_if(|&leased| leased < block).is_some() {}
                leased.peek() == Some(&block)
            };
            let block = blocks.unfinished().find(|&block| !is_leased(block))?;
            Some((work, block))
        })
    }

    fn fill(
        &mut self,
        now: Millis,
        (worker, lease): (Uuid, Option<LeaseId>),
        filled: &[Filled],
        effects: &mut Vec<Effect>,
    ) {
        if let Some(lease) = lease.filter(|&lease| self.leases.belongs(lease, worker)) {
            self.leases.submitted(lease, now);
        }
        for &Filled { slot, zero_variance } in filled {
            let (work, index, attempt) = Work::of(slot);
            let Some(blocks) = self.open.get_mut(&work) else { continue };
            let after = blocks.fill(index, attempt, zero_variance);
            if after == AfterFill::Nothing {
                continue;
            }
            self.leases.remove_block(work, blocks.block_of(index));
            if after == AfterFill::NextAttempt || blocks.is_full() {
                effects.push(Effect::Wake);
            }
        }
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.slots_done += filled.len() as u64;
        }
        // The worker submitted without some slots, so another worker may sample them.
        if let Some(lease) = lease.filter(|&lease| self.leases.belongs(lease, worker)) {
            self.leases.remove(lease);
            effects.push(Effect::Wake);
        }
    }
}
