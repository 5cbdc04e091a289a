//! Detects silent ranks and leases without progress. The module only reports them: the user decides whether
//! to restart a rank or stop a worker.

use uuid::Uuid;

use super::{LeaseId, Machine, Millis, Work};

/// A lease is stalled if it is held this many times as long as the longest of the last leases of its kind, and at
/// least [`DEADLINES`] lease deadlines.
const TIMES_AS_LONG: u64 = 5;
/// Minimum age of a stalled lease, in lease deadlines.
const DEADLINES: u64 = 2;
/// If no lease of its kind was submitted yet, a lease is stalled after this many lease deadlines.
const DEADLINES_OF_THE_FIRST: u64 = 40;

/// The health of a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankHealth {
    /// The rank.
    pub rank: u32,
    /// Time since its last call, or since this process started if there was none.
    pub unheard: Millis,
    /// Whether the rank has called this process.
    pub heard: bool,
    /// Whether it has joined the rank group that is forming or complete.
    pub joined: bool,
    /// Whether it has not called for a lease deadline.
    pub silent: bool,
}

/// A lease and its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldLease {
    /// The lease.
    pub id: LeaseId,
    /// Its holder.
    pub worker: Uuid,
    /// The work of the lease.
    pub work: Work,
    /// Time since it was granted.
    pub age: Millis,
    /// Whether it is held far longer than earlier leases were.
    pub stalled: bool,
}

impl Machine {
    /// Returns the health of the learner's ranks, without ranks that know that the run is over. Time starts
    /// at 0 with this process.
    pub fn rank_health(&self, now: Millis) -> Vec<RankHealth> {
        let ranks = (0..self.ranks.size()).filter(|rank| !self.dismissed.contains(rank));
        let health = |rank| {
            let last = self.ranks_heard.get(&rank).copied();
            let unheard = Millis(now.0.saturating_sub(last.unwrap_or_default().0));
            let silent = unheard >= self.schedule.lease_deadline && !self.complete;
            RankHealth { rank, unheard, heard: last.is_some(), joined: self.ranks.has_joined(rank), silent }
        };
        ranks.map(health).collect()
    }

    /// Returns the current leases, the oldest first.
    pub fn old_leases(&self, now: Millis) -> Vec<OldLease> {
        let deadlines = |count: u64| self.schedule.lease_deadline.0.saturating_mul(count);
        let lease = |(id, held): (LeaseId, &super::leases::Held)| {
            let bound = match self.leases.longest(held.work) {
                Some(longest) => longest.0.saturating_mul(TIMES_AS_LONG).max(deadlines(DEADLINES)),
                None => deadlines(DEADLINES_OF_THE_FIRST),
            };
            let age = Millis(now.0.saturating_sub(held.granted.0));
            OldLease { id, worker: held.worker, work: held.work, age, stalled: age.0 >= bound }
        };
        // Lease numbers ascend with time.
        self.leases.by_age().map(lease).collect()
    }
}

#[cfg(test)]
mod tests {
    use podium_grpo::Step;

    use super::super::{Join, Lease, LeaseReply, Recovered, Schedule};
    use super::*;
    use crate::results::Filled;

    fn machine() -> Machine {
        let schedule = Schedule {
            steps: 9,
            prompts_per_step: 4,
            prompts_per_lease: 1,
            refill_attempts: 0,
            max_policy_lag: 0,
            evaluate_every_steps: 0,
            evaluation_prompts: 0,
            evaluation_prompts_per_lease: 1,
            evaluations_may_end: false,
            lease_deadline: Millis(100),
        };
        Machine::restore(schedule, Recovered::default())
    }

    const LEARNER: [Uuid; 2] = [Uuid::from_u128(10), Uuid::from_u128(11)];

    fn silent(machine: &Machine, now: u64) -> Vec<u32> {
        machine.rank_health(Millis(now)).iter().filter(|rank| rank.silent).map(|rank| rank.rank).collect()
    }

    #[test]
    fn a_rank_that_is_not_heard_is_silent() {
        let mut machine = machine();
        assert!(machine.rank_health(Millis(1_000)).is_empty());
        let join =
            |rank: u32| Join { learner: LEARNER[rank as usize], rank, world_size: 2, ..Join::default() };
        machine.join(Millis(150), join(0));
        assert_eq!(silent(&machine, 150), [1], "it has not come since the start");
        machine.join(Millis(160), join(1));
        assert_eq!(silent(&machine, 240), [0_u32; 0]);
        machine.rank_alive(Millis(245), LEARNER[0]);
        assert_eq!(silent(&machine, 260), [1]);
        machine.request_batch(Millis(270), 1, LEARNER[1], Step(0));
        assert_eq!(silent(&machine, 300), [0_u32; 0]);
        machine.drain(Millis(900), "enough".into());
        machine.request_batch(Millis(900), 0, LEARNER[0], Step(0));
        assert_eq!(silent(&machine, 1_000), [1], "a rank that knows that the run is over may be silent");
    }

    #[test]
    fn a_lease_that_is_renewed_and_never_submitted_is_stalled() {
        let mut machine = machine();
        let [idler, worker] = [1, 2].map(Uuid::from_u128);
        let lease = |machine: &mut Machine, now: u64, worker: Uuid| -> Lease {
            machine.register_worker(Millis(now), worker);
            match machine.request_lease(Millis(now), worker).reply {
                Ok(LeaseReply::Granted(lease)) => lease,
                other => panic!("no lease but {other:?}"),
            }
        };
        let kept = lease(&mut machine, 0, idler);
        let beat = |machine: &mut Machine, now: u64| {
            machine.heartbeat(Millis(now), idler, &[kept.id]);
        };
        (1..=400).for_each(|beats| beat(&mut machine, beats * 10));
        let stalled =
            |machine: &Machine, now: u64| machine.old_leases(Millis(now)).iter().any(|lease| lease.stalled);
        assert!(!stalled(&machine, 3_999) && stalled(&machine, 4_000), "without others to compare it with");

        let done = lease(&mut machine, 4_000, worker);
        let filled: Vec<_> = done.slots.iter().map(|&slot| Filled { slot, zero_variance: false }).collect();
        machine.results_stored(Millis(4_060), (worker, Some(done.id)), &filled);
        let late = lease(&mut machine, 4_060, worker);
        beat(&mut machine, 4_060);
        let oldest = machine.old_leases(Millis(4_100));
        assert_eq!((oldest[0].worker, oldest[0].age, oldest[0].stalled), (idler, Millis(4_100), true));
        assert_eq!((oldest[1].id, oldest[1].stalled), (late.id, false));
        assert!(machine.old_leases(Millis(4_360))[1].stalled, "five times 60 ms");
    }
}
