//! The leases: which worker holds which block until when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::schedule::{Millis, Work};

/// A lease's number, unique while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// Leases of one kind of work whose time is remembered.
const REMEMBERED: usize = 32;

/// A lease that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) worker: Uuid,
    pub(super) work: Work,
    pub(super) block: u32,
    pub(super) granted: Millis,
    pub(super) deadline: Millis,
    /// Heartbeats of the worker since, that did not name it.
    pub(super) unmentioned: u32,
}

/// All leases. A block is in at most one of them.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<LeaseId, Held>,
    blocks: BTreeMap<(Work, u32), LeaseId>,
    next: u64,
    /// How long the last leases took that were submitted: of training, and of evaluation.
    took: [VecDeque<Millis>; 2],
}

impl Leases {
    /// Gives a block to a worker.
    pub(super) fn grant(&mut self, held: Held) -> LeaseId {
        let id = LeaseId(self.next);
        self.next += 1;
        self.blocks.insert((held.work, held.block), id);
        self.held.insert(id, held);
        id
    }

    /// All leases, by age.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (LeaseId, &Held)> {
        self.held.iter().map(|(id, held)| (*id, held))
    }

    /// Notes that a lease is submitted.
    pub(super) fn submitted(&mut self, id: LeaseId, now: Millis) {
        let Some(held) = self.held.get(&id) else { return };
        let took = &mut self.took[index_of(held.work)];
        took.truncate(REMEMBERED - 1);
        took.push_front(Millis(now.0.saturating_sub(held.granted.0)));
    }

    /// The longest time that one of the last leases of such work took; `None` before the first.
    pub(super) fn longest(&self, work: Work) -> Option<Millis> {
        self.took[index_of(work)].iter().max().copied()
    }

    /// Takes a lease back.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.blocks.remove(&(held.work, held.block));
        Some(held)
    }

    /// Takes back whatever lease there is on a block.
    pub(super) fn remove_block(&mut self, work: Work, block: u32) {
        if let Some(id) = self.blocks.remove(&(work, block)) {
            self.held.remove(&id);
        }
    }

    /// Takes back all leases of a piece of work.
    pub(super) fn remove_work(&mut self, work: Work) {
        self.blocks.retain(|(leased, _), _| *leased != work);
        self.held.retain(|_, held| held.work != work);
    }

    /// Whether a worker holds a lease on a block.
    pub(super) fn is_leased(&self, work: Work, block: u32) -> bool {
        self.blocks.contains_key(&(work, block))
    }

    /// Whether a lease is on a block.
    pub(super) fn is_on(&self, id: LeaseId, work: Work, block: u32) -> bool {
        self.blocks.get(&(work, block)) == Some(&id)
    }

    /// The leases of a process that is started again have other numbers.
    #[cfg(test)]
    pub(super) const fn number_from(&mut self, next: u64) {
        self.next = next;
    }

    /// The leases that a worker holds.
    pub(super) fn of_worker(&self, worker: Uuid) -> impl Iterator<Item = LeaseId> {
        self.held.iter().filter(move |(_, held)| held.worker == worker).map(|(id, _)| *id)
    }

    /// Number of workers that hold a lease.
    pub(super) fn holders(&self) -> u32 {
        self.held.values().map(|held| held.worker).collect::<BTreeSet<_>>().len() as u32
    }

    /// Whether a lease is a worker's.
    pub(super) fn belongs(&self, id: LeaseId, worker: Uuid) -> bool {
        self.held.get(&id).is_some_and(|held| held.worker == worker)
    }

    /// Takes a heartbeat: leases that it names live until `deadline`. Returns those that it has not named `most` times in a
    /// row: they never reached their worker, since the reply that granted them was lost.
    pub(super) fn beat(
        &mut self,
        worker: Uuid,
        named: &[LeaseId],
        deadline: Millis,
        most: u32,
    ) -> Vec<LeaseId> {
        let mut unheard = Vec::new();
        for (id, held) in self.held.iter_mut().filter(|(_, held)| held.worker == worker) {
            if named.contains(id) {
                (held.deadline, held.unmentioned) = (deadline, 0);
            } else {
                held.unmentioned += 1;
                if held.unmentioned >= most {
                    unheard.push(*id);
                }
            }
        }
        unheard
    }

    /// The leases whose deadline has come.
    pub(super) fn expired(&self, now: Millis) -> Vec<LeaseId> {
        self.held.iter().filter(|(_, held)| held.deadline <= now).map(|(id, _)| *id).collect()
    }
}

const fn index_of(work: Work) -> usize {
    match work {
        Work::Training(_) => 0,
        Work::Evaluation(_) => 1,
    }
}
