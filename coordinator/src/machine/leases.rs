//! The leases: worker, block and deadline of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::schedule::{Millis, Work};

/// A lease's number, unique during the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// Number of recent leases of one kind of work whose duration is stored.
const REMEMBERED: usize = 32;

/// A lease that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) worker: Uuid,
    pub(super) work: Work,
    pub(super) block: u32,
    pub(super) granted: Millis,
    pub(super) deadline: Millis,
    /// Number of consecutive heartbeats of the worker that did not report it.
    pub(super) unmentioned: u32,
}

/// All leases. A block has at most one.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<LeaseId, Held>,
    blocks: BTreeMap<(Work, u32), LeaseId>,
    /// The leases of each worker that holds any.
    workers: BTreeMap<Uuid, BTreeSet<LeaseId>>,
    /// No lease expires before this time. Heartbeats extend deadlines and leave it unchanged.
    expires: Millis,
    next: u64,
    /// Durations of the last submitted leases: of training, and of evaluation.
    took: [VecDeque<Millis>; 2],
}

impl Leases {
    /// Leases a block to a worker.
    pub(super) fn grant(&mut self, held: Held) -> LeaseId {
        let id = LeaseId(self.next);
        self.next += 1;
        self.expires = if self.held.is_empty() { held.deadline } else { self.expires.min(held.deadline) };
        self.blocks.insert((held.work, held.block), id);
        self.workers.entry(held.worker).or_default().insert(id);
        self.held.insert(id, held);
        id
    }

    /// Returns all leases, by age.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (LeaseId, &Held)> {
        self.held.iter().map(|(id, held)| (*id, held))
    }

    /// Records that a lease is submitted.
    pub(super) fn submitted(&mut self, id: LeaseId, now: Millis) {
        let Some(held) = self.held.get(&id) else { return };
        let took = &mut self.took[index_of(held.work)];
        took.truncate(REMEMBERED - 1);
        took.push_front(Millis(now.0.saturating_sub(held.granted.0)));
    }

    /// Returns the longest duration of the recent leases of such work; `None` before the first.
    pub(super) fn longest(&self, work: Work) -> Option<Millis> {
        self.took[index_of(work)].iter().max().copied()
    }

    /// Removes a lease.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.blocks.remove(&(held.work, held.block));
        if let Some(leases) = self.workers.get_mut(&held.worker) {
            leases.remove(&id);
            if leases.is_empty() {
                self.workers.remove(&held.worker);
            }
        }
        Some(held)
    }

    /// Removes the lease on a block, if any.
    pub(super) fn remove_block(&mut self, work: Work, block: u32) {
        if let Some(&id) = self.blocks.get(&(work, block)) {
            self.remove(id);
        }
    }

    /// Removes all leases of a piece of work.
    pub(super) fn remove_work(&mut self, work: Work) {
        let leases: Vec<LeaseId> =
            self.blocks.range((work, 0)..=(work, u32::MAX)).map(|(_, id)| *id).collect();
        for id in leases {
            self.remove(id);
        }
    }

    /// Returns the leased blocks of a piece of work, in order.
    pub(super) fn leased_blocks(&self, work: Work) -> impl Iterator<Item = u32> {
        self.blocks.range((work, 0)..=(work, u32::MAX)).map(|((_, block), _)| *block)
    }

    /// Returns whether a lease is on a block.
    pub(super) fn is_on(&self, id: LeaseId, work: Work, block: u32) -> bool {
        self.blocks.get(&(work, block)) == Some(&id)
    }

    /// Sets the first lease number, so that a restarted process uses other numbers.
    #[cfg(test)]
    pub(super) const fn number_from(&mut self, next: u64) {
        self.next = next;
    }

    /// Returns the leases that a worker holds.
    pub(super) fn of_worker(&self, worker: Uuid) -> impl Iterator<Item = LeaseId> {
        self.workers.get(&worker).into_iter().flatten().copied()
    }

    /// Returns the number of workers that hold a lease.
    pub(super) fn holders(&self) -> u32 {
        self.workers.len() as u32
    }

    /// Returns whether a worker holds a lease.
    pub(super) fn belongs(&self, id: LeaseId, worker: Uuid) -> bool {
        self.held.get(&id).is_some_and(|held| held.worker == worker)
    }

    /// Handles a heartbeat: extends the reported leases to `deadline`. Returns leases that were missing in
    /// `most` consecutive heartbeats: they never reached their worker, because the reply that granted them
    /// was lost.
    pub(super) fn beat(
        &mut self,
        worker: Uuid,
        named: &[LeaseId],
        deadline: Millis,
        most: u32,
    ) -> Vec<LeaseId> {
        let mut unheard = Vec::new();
        for id in self.workers.get(&worker).into_iter().flatten() {
            let Some(held) = self.held.get_mut(id) else { continue };
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

    /// Returns the leases whose deadline has passed, for the caller to remove.
    pub(super) fn expired(&mut self, now: Millis) -> Vec<LeaseId> {
        if now < self.expires {
            return Vec::new();
        }
        let (expired, others): (Vec<_>, Vec<_>) =
            self.held.iter().partition(|(_, held)| held.deadline <= now);
        self.expires = others.iter().map(|(_, held)| held.deadline).min().unwrap_or_default();
        expired.into_iter().map(|(id, _)| *id).collect()
    }
}

const fn index_of(work: Work) -> usize {
    match work {
        Work::Training(_) => 0,
        Work::Evaluation(_) => 1,
    }
}
