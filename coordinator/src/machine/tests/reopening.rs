//! Unusable results: slots that are sampled again, and workers that get no more work.

use super::*;

#[test]
fn a_group_that_cannot_be_trained_on_is_leased_again_with_its_batch() {
    let mut machine = machine();
    join(&mut machine);
    assert_eq!(machine.reopening(OTHER, Step(0), &[]), Err(Error::UnknownLearner { learner: OTHER }));
    let first = lease(&mut machine, 0, WORKER).unwrap();
    submit(&mut machine, 0, WORKER, &first);
    work_off(&mut machine);
    assert_eq!(batch(&mut machine, 0), READY);
    let reopening = machine.reopening(LEARNER, Step(0), &[(1, 0), (1, 0), (2, 1), (9, 0)]).unwrap();
    assert_eq!((&reopening.slots, &reopening.removed), (&vec![(1, 0)], &vec![(1, None)]));
    assert_eq!(batch(&mut machine, 0), READY, "the query changes nothing");
    let effects = machine.slots_reopened(Millis(0), Step(0), &reopening.slots).effects;
    assert!(effects.contains(&Effect::Wake));
    assert_eq!((batch(&mut machine, 0), machine.reopened(1)), (NOT_READY, 1));
    assert!(machine.check_commit(LEARNER, Step(0)).is_err());
    machine.slots_reopened(Millis(0), Step(0), &reopening.slots);
    assert_eq!(machine.reopened(1), 1, "repeated");
    let again = lease(&mut machine, 0, OTHER).unwrap();
    assert_eq!(again.slots, first.slots, "the batch is as it was");
    submit(&mut machine, 0, OTHER, &again);
    assert_eq!(batch(&mut machine, 0), READY);
    machine.version_published(Millis(0), PolicyVersion(1));
    machine.step_committed(Millis(0), Step(0));
    assert_eq!(machine.reopened(1), 0);
    let committed = machine.reopening(LEARNER, Step(0), &[(1, 0)]).unwrap_err().to_string();
    assert!(
        committed.contains("groups of step 0") && committed.contains("step 1 is in progress"),
        "{committed}"
    );
    assert!(matches!(machine.reopening(LEARNER, Step(2), &[]), Err(Error::StepAhead { .. })));
}

#[test]
fn a_late_result_of_before_a_block_was_taken_back_is_refused() {
    let schedule = Schedule { refill_attempts: 1, evaluation_prompts: 0, ..schedule() };
    let mut machine = Machine::restore(schedule.clone(), Recovered::default());
    machine.register_worker(Millis(0), WORKER);
    join(&mut machine);
    let slot = |index, attempt| Work::Training(Step(0)).slot(index, attempt);
    let scored = |machine: &mut Machine, lease: &Lease, equal: [bool; 2]| {
        let filled = lease.slots.iter().zip(equal);
        let filled: Vec<_> = filled.map(|(&slot, zero_variance)| Filled { slot, zero_variance }).collect();
        machine.results_stored(Millis(0), (WORKER, Some(lease.id)), &filled);
    };
    // The first of two groups is unusable. Only the second has equal rewards, and it is alone in the next
    // attempt.
    let first = lease(&mut machine, 0, WORKER).unwrap();
    scored(&mut machine, &first, [false, true]);
    let alone = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(alone.slots, [slot(1, 1)]);
    scored(&mut machine, &alone, [false, false]);
    work_off(&mut machine);
    let reopening = machine.reopening(LEARNER, Step(0), &[(0, 0)]).unwrap();
    assert_eq!(reopening.removed, [(0, None), (1, Some(0))]);
    machine.slots_reopened(Millis(0), Step(0), &reopening.slots);
    let again = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(again.slots, [slot(0, 0), slot(1, 0)]);
    scored(&mut machine, &again, [true, true]);
    // The result that was sampled alone is submitted again; the attempt now has both slots.
    let version = PolicyVersion(0);
    assert_eq!(machine.verdict_under(slot(1, 1), version, Some(alone.id)), Verdict::Refused);
    assert_eq!(machine.verdict_under(slot(1, 1), version, None), Verdict::Refused);
    let both = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(both.slots, [slot(0, 1), slot(1, 1)]);
    assert_eq!(machine.verdict_under(slot(1, 1), version, Some(both.id)), Verdict::Wanted);
    // The same holds after a restart.
    let filled = [0, 1].map(|index| Filled { slot: slot(index, 0), zero_variance: true }).to_vec();
    let recovered = Recovered { filled, reopened: vec![0], ..Recovered::default() };
    let restored = Machine::restore(schedule, recovered);
    assert_eq!(restored.verdict_under(slot(1, 1), version, None), Verdict::Refused);
    assert_eq!(restored.verdict_under(slot(3, 0), version, None), Verdict::Wanted, "another block");
}

#[test]
fn a_worker_with_unusable_results_receives_no_more_leases() {
    let mut machine = machine();
    for offence in 1..=MAX_OFFENCES {
        let held = lease(&mut machine, 0, WORKER).unwrap();
        let Transition { reply, effects } = machine.record_offence(Millis(0), WORKER, Some(held.id));
        assert!(effects.contains(&Effect::Wake));
        assert_eq!(reply, offence);
        let free = lease(&mut machine, 0, OTHER).unwrap();
        assert_eq!(free.slots, held.slots, "its lease is free at once");
        machine.disconnect_worker(Millis(0), OTHER);
        machine.register_worker(Millis(0), OTHER);
    }
    let refused = machine.request_lease(Millis(0), WORKER).reply;
    let expelled = Error::Expelled { worker: WORKER, offences: MAX_OFFENCES };
    assert_eq!(refused, Err(expelled.clone()));
    assert_eq!(machine.check_worker(WORKER), Err(expelled));
    machine.register_worker(Millis(0), WORKER);
    assert!(machine.check_worker(WORKER).is_err(), "registering again resets nothing");
    assert_eq!(machine.check_worker(OTHER), Ok(()));
}
