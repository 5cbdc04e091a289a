//! Properties of arbitrary sequences of calls.

use podium_proto::convert::Slot;
use proptest::prelude::*;

use super::*;

/// A call to the machine.
#[derive(Debug, Clone)]
enum Call {
    Register(Uuid),
    Disconnect(Uuid),
    RequestLease(Uuid),
    Heartbeat(Uuid, Vec<LeaseId>),
    Results(Uuid, Option<LeaseId>, Vec<Filled>),
    Offence(Uuid, Option<LeaseId>),
    Join(Join),
    Batch(u32, Uuid, Step),
    Published(PolicyVersion),
    Committed(Step),
    Reopened(Step, Vec<(u32, u32)>),
    Checkpoint(u32, Step),
    Tick,
}

impl Call {
    /// Makes the call; returns the lease that it grants.
    fn make(self, machine: &mut Machine, now: Millis) -> Option<Lease> {
        match self {
            Self::Register(worker) => drop(machine.register_worker(now, worker)),
            Self::Disconnect(worker) => drop(machine.disconnect_worker(now, worker)),
            Self::RequestLease(worker) => {
                if let Ok(LeaseReply::Granted(lease)) = machine.request_lease(now, worker).reply {
                    return Some(lease);
                }
            }
            Self::Heartbeat(worker, leases) => drop(machine.heartbeat(now, worker, &leases)),
            Self::Results(worker, lease, filled) => {
                drop(machine.results_stored(now, (worker, lease), &filled));
            }
            Self::Offence(worker, lease) => drop(machine.record_offence(now, worker, lease)),
            Self::Join(join) => drop(machine.join(now, join)),
            Self::Batch(rank, learner, step) => drop(machine.request_batch(now, rank, learner, step)),
            Self::Published(version) => drop(machine.version_published(now, version)),
            Self::Committed(step) => drop(machine.step_committed(now, step)),
            Self::Reopened(step, slots) => drop(machine.slots_reopened(now, step, &slots)),
            Self::Checkpoint(rank, step) => drop(machine.checkpoint_stored(now, rank, step)),
            Self::Tick => drop(machine.tick(now)),
        }
        None
    }
}

fn arbitrary_call() -> impl Strategy<Value = Call> {
    let worker = || (0_u128..3).prop_map(Uuid::from_u128);
    let learner = || (0_u128..3).prop_map(Uuid::from_u128);
    let lease = || (0_u64..20).prop_map(LeaseId);
    let slot = (any::<bool>(), 0_u64..3, 0_u32..6, 0_u32..3).prop_map(|(training, n, index, attempt)| {
        let work = if training { Work::Training(Step(n)) } else { Work::Evaluation(PolicyVersion(n)) };
        work.slot(index, attempt)
    });
    let filled = (slot, any::<bool>()).prop_map(|(slot, zero_variance)| Filled { slot, zero_variance });
    prop_oneof![
        worker().prop_map(Call::Register),
        worker().prop_map(Call::Disconnect),
        worker().prop_map(Call::RequestLease),
        (worker(), prop::collection::vec(lease(), 0..3))
            .prop_map(|(worker, leases)| Call::Heartbeat(worker, leases)),
        (worker(), prop::option::of(lease()), prop::collection::vec(filled, 0..4))
            .prop_map(|(worker, lease, filled)| Call::Results(worker, lease, filled)),
        (learner(), 0_u32..3, 1_u32..3).prop_map(|(learner, rank, world_size)| {
            Call::Join(Join { learner, rank, world_size, ..Join::default() })
        }),
        (learner(), 0_u32..3, 0_u64..4).prop_map(|(learner, rank, step)| Call::Batch(
            rank,
            learner,
            Step(step)
        )),
        (0_u64..3).prop_map(|version| Call::Published(PolicyVersion(version))),
        (0_u64..3).prop_map(|step| Call::Committed(Step(step))),
        (0_u64..3, prop::collection::vec((0_u32..6, 0_u32..3), 0..3))
            .prop_map(|(step, slots)| Call::Reopened(Step(step), slots)),
        (worker(), prop::option::of(lease())).prop_map(|(worker, lease)| Call::Offence(worker, lease)),
        (0_u32..2, 0_u64..4).prop_map(|(rank, step)| Call::Checkpoint(rank, Step(step))),
        Just(Call::Tick),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_block_has_one_owner(
        calls in prop::collection::vec((arbitrary_call(), 0_u64..60), 0..120),
        refill_attempts in 0_u32..3,
        max_policy_lag in 0_u64..3,
    ) {
        let schedule = Schedule { refill_attempts, max_policy_lag, ..schedule() };
        let mut machine = Machine::restore(schedule, Recovered::default());
        let (mut now, mut owners) = (0, BTreeMap::<LeaseId, Uuid>::new());
        for (call, pause) in calls {
            now += pause;
            let worker = match &call { Call::RequestLease(worker) => Some(*worker), _ => None };
            if let Some(lease) = call.make(&mut machine, Millis(now)) {
                let owner = *owners.entry(lease.id).or_insert_with(|| worker.unwrap());
                prop_assert_eq!(Some(owner), worker);
                let wanted = |slot: &Slot| machine.verdict(*slot, lease.version) == Verdict::Wanted;
                prop_assert!(lease.slots.iter().any(wanted));
                let slots: Vec<_> = lease.slots.iter().map(|slot| Work::of(*slot)).collect();
                let (work, first, attempt) = slots[0];
                prop_assert_eq!(work, lease.work);
                let together = |&(w, index, a): &(Work, u32, u32)| (w, index / 2, a) == (work, first / 2, attempt);
                prop_assert!(slots.iter().all(together), "of one block and one attempt: {:?}", slots);
            }
            prop_assert!(machine.kept_from <= machine.committed);
        }
    }

    #[test]
    fn a_restart_continues_where_the_run_was(
        results in prop::collection::vec((0_u32..5, 0_u32..3, any::<bool>()), 0..20)
    ) {
        let schedule = Schedule { refill_attempts: 2, ..schedule() };
        let mut before = Machine::restore(schedule.clone(), Recovered::default());
        before.register_worker(Millis(0), WORKER);
        let mut kept = BTreeMap::new();
        for (index, attempt, zero_variance) in results {
            let slot = Work::Training(Step(0)).slot(index, attempt);
            if before.verdict(slot, PolicyVersion(0)) == Verdict::Wanted {
                let filled = Filled { slot, zero_variance };
                kept.insert(index, filled);
                before.results_stored(Millis(0), (WORKER, None), &[filled]);
            }
        }
        let filled = kept.into_values().collect();
        let mut after = Machine::restore(schedule, Recovered { filled, ..Recovered::default() });
        after.register_worker(Millis(0), WORKER);
        prop_assert_eq!(work_off(&mut before), work_off(&mut after));
    }
}
