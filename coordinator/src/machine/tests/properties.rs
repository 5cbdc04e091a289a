//! Properties over arbitrary events.

use podium_proto::convert::Slot;
use proptest::prelude::*;

use super::*;

fn arbitrary_event() -> impl Strategy<Value = Event> {
    let worker = || (0_u128..3).prop_map(Uuid::from_u128);
    let learner = || (0_u128..3).prop_map(Uuid::from_u128);
    let slot = (any::<bool>(), 0_u64..3, 0_u32..6, 0_u32..3).prop_map(|(training, n, index, attempt)| {
        let work = if training { Work::Training(Step(n)) } else { Work::Evaluation(PolicyVersion(n)) };
        work.slot(index, attempt)
    });
    let filled = (slot, any::<bool>()).prop_map(|(slot, zero_variance)| Filled { slot, zero_variance });
    prop_oneof![
        worker().prop_map(|worker| Event::WorkerRegistered { worker }),
        worker().prop_map(|worker| Event::WorkerLeft { worker }),
        worker().prop_map(|worker| Event::LeaseWanted { worker }),
        (worker(), prop::collection::vec((0_u64..20).prop_map(LeaseId), 0..3))
            .prop_map(|(worker, leases)| Event::Heartbeat { worker, leases }),
        (worker(), prop::option::of((0_u64..20).prop_map(LeaseId)), prop::collection::vec(filled, 0..4))
            .prop_map(|(worker, lease, filled)| Event::Scored { worker, lease, filled }),
        (learner(), 0_u32..3, 1_u32..3).prop_map(|(learner, rank, world_size)| {
            Event::RankJoined(Join { learner, rank, world_size, ..Join::default() })
        }),
        (learner(), 0_u32..3, 0_u64..4).prop_map(|(learner, rank, step)| Event::BatchWanted {
            rank,
            learner,
            step: Step(step)
        }),
        (0_u64..3).prop_map(|version| Event::VersionPublished { version: PolicyVersion(version) }),
        (0_u64..3).prop_map(|step| Event::StepCommitted { step: Step(step) }),
        (0_u64..3, prop::collection::vec((0_u32..6, 0_u32..3), 0..3))
            .prop_map(|(step, slots)| Event::Reopened { step: Step(step), slots }),
        (worker(), prop::option::of((0_u64..20).prop_map(LeaseId)))
            .prop_map(|(worker, lease)| Event::Offended { worker, lease }),
        (0_u32..2, 0_u64..4).prop_map(|(rank, step)| Event::CheckpointKept { rank, step: Step(step) }),
        Just(Event::Tick),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_block_has_one_owner(
        events in prop::collection::vec((arbitrary_event(), 0_u64..60), 0..120),
        refill_attempts in 0_u32..3,
        max_policy_lag in 0_u64..3,
    ) {
        let plan = Plan { refill_attempts, max_policy_lag, ..plan() };
        let mut machine = Machine::restore(plan, Recovered::default());
        let (mut now, mut owners) = (0, BTreeMap::<LeaseId, Uuid>::new());
        for (event, pause) in events {
            now += pause;
            let worker = match &event { Event::LeaseWanted { worker } => Some(*worker), _ => None };
            for action in machine.step(Millis(now), event) {
                if let Action::Grant(lease) = action {
                    let owner = *owners.entry(lease.id).or_insert_with(|| worker.unwrap());
                    prop_assert_eq!(Some(owner), worker);
                    let wanted = |slot: &Slot| machine.verdict(*slot, lease.version) == Verdict::Wanted;
                    prop_assert!(lease.slots.iter().any(wanted));
                    let places: Vec<_> = lease.slots.iter().map(|slot| Work::of(*slot)).collect();
                    let (work, first, attempt) = places[0];
                    prop_assert_eq!(work, lease.work);
                    let together = |&(w, index, a): &(Work, u32, u32)| (w, index / 2, a) == (work, first / 2, attempt);
                    prop_assert!(places.iter().all(together), "of one block and one attempt: {:?}", places);
                }
            }
            prop_assert!(machine.kept_from <= machine.committed);
        }
    }

    #[test]
    fn a_restart_continues_where_the_run_was(
        results in prop::collection::vec((0_u32..5, 0_u32..3, any::<bool>()), 0..20)
    ) {
        let plan = Plan { refill_attempts: 2, ..plan() };
        let mut before = Machine::restore(plan.clone(), Recovered::default());
        before.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
        let mut kept = BTreeMap::new();
        for (index, attempt, zero_variance) in results {
            let slot = Work::Training(Step(0)).slot(index, attempt);
            if before.verdict(slot, PolicyVersion(0)) == Verdict::Wanted {
                let filled = Filled { slot, zero_variance };
                kept.insert(index, filled);
                before.step(Millis(0), Event::Scored { worker: WORKER, lease: None, filled: vec![filled] });
            }
        }
        let filled = kept.into_values().collect();
        let mut after = Machine::restore(plan, Recovered { filled, ..Recovered::default() });
        after.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
        prop_assert_eq!(work_off(&mut before), work_off(&mut after));
    }
}
