//! Results that cannot be used: slots that are sampled again, and workers that get no more work.

use super::*;

#[test]
fn a_group_that_cannot_be_trained_on_is_leased_again_with_its_batch() {
    let mut machine = machine();
    join(&mut machine);
    assert_eq!(machine.reopening(OTHER, Step(0), &[]), Err(Error::UnknownLearner { learner: OTHER }));
    let first = lease(&mut machine, 0, WORKER).unwrap();
    submit(&mut machine, 0, WORKER, &first);
    work_off(&mut machine);
    assert_eq!(batch(&mut machine, 0), Action::ServeBatch);
    let reopening = machine.reopening(LEARNER, Step(0), &[(1, 0), (1, 0), (2, 1), (9, 0)]).unwrap();
    assert_eq!((&reopening.slots, &reopening.removed), (&vec![(1, 0)], &vec![(1, None)]));
    assert_eq!(batch(&mut machine, 0), Action::ServeBatch, "asking changes nothing");
    let reopened = Event::Reopened { step: Step(0), slots: reopening.slots };
    assert!(machine.step(Millis(0), reopened.clone()).contains(&Action::Wake));
    assert_eq!((batch(&mut machine, 0), machine.reopened(1)), (Action::Wait, 1));
    assert!(machine.check_commit(LEARNER, Step(0)).is_err());
    machine.step(Millis(0), reopened);
    assert_eq!(machine.reopened(1), 1, "repeated");
    let again = lease(&mut machine, 0, OTHER).unwrap();
    assert_eq!(again.slots, first.slots, "the batch is as it was");
    submit(&mut machine, 0, OTHER, &again);
    assert_eq!(batch(&mut machine, 0), Action::ServeBatch);
    machine.step(Millis(0), Event::VersionPublished { version: PolicyVersion(1) });
    machine.step(Millis(0), Event::StepCommitted { step: Step(0) });
    assert_eq!(machine.reopened(1), 0);
    let committed = machine.reopening(LEARNER, Step(0), &[(1, 0)]).unwrap_err().to_string();
    assert!(
        committed.contains("groups of step 0") && committed.contains("step 1 is being made"),
        "{committed}"
    );
    assert!(matches!(machine.reopening(LEARNER, Step(2), &[]), Err(Error::StepAhead { .. })));
}

#[test]
fn a_late_result_of_before_a_block_was_taken_back_is_refused() {
    let plan = Plan { refill_attempts: 1, evaluation_prompts: 0, ..plan() };
    let mut machine = Machine::restore(plan.clone(), Recovered::default());
    machine.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
    join(&mut machine);
    let slot = |index, attempt| Work::Training(Step(0)).slot(index, attempt);
    let scored = |machine: &mut Machine, lease: &Lease, equal: [bool; 2]| {
        let filled = lease.slots.iter().zip(equal);
        let filled = filled.map(|(&slot, zero_variance)| Filled { slot, zero_variance }).collect();
        machine.step(Millis(0), Event::Scored { worker: WORKER, lease: Some(lease.id), filled });
    };
    // The first of two groups is wrong: only the second has equal rewards, and is alone in the next attempt.
    let first = lease(&mut machine, 0, WORKER).unwrap();
    scored(&mut machine, &first, [false, true]);
    let alone = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(alone.slots, [slot(1, 1)]);
    scored(&mut machine, &alone, [false, false]);
    work_off(&mut machine);
    let reopening = machine.reopening(LEARNER, Step(0), &[(0, 0)]).unwrap();
    assert_eq!(reopening.removed, [(0, None), (1, Some(0))]);
    machine.step(Millis(0), Event::Reopened { step: Step(0), slots: reopening.slots });
    let again = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(again.slots, [slot(0, 0), slot(1, 0)]);
    scored(&mut machine, &again, [true, true]);
    // The result that was sampled alone comes once more; the attempt has both slots now.
    let version = PolicyVersion(0);
    assert_eq!(machine.verdict_under(slot(1, 1), version, Some(alone.id)), Verdict::Refused);
    assert_eq!(machine.verdict_under(slot(1, 1), version, None), Verdict::Refused);
    let both = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(both.slots, [slot(0, 1), slot(1, 1)]);
    assert_eq!(machine.verdict_under(slot(1, 1), version, Some(both.id)), Verdict::Wanted);
    // Also after a restart.
    let filled = [0, 1].map(|index| Filled { slot: slot(index, 0), zero_variance: true }).to_vec();
    let recovered = Recovered { filled, reopened: vec![0], ..Recovered::default() };
    let restored = Machine::restore(plan, recovered);
    assert_eq!(restored.verdict_under(slot(1, 1), version, None), Verdict::Refused);
    assert_eq!(restored.verdict_under(slot(3, 0), version, None), Verdict::Wanted, "another block");
}

#[test]
fn a_worker_whose_results_cannot_be_used_gets_no_more_work() {
    let mut machine = machine();
    for offence in 1..=MOST_OFFENCES {
        let held = lease(&mut machine, 0, WORKER).unwrap();
        let actions = machine.step(Millis(0), Event::Offended { worker: WORKER, lease: Some(held.id) });
        assert!(actions.contains(&Action::Wake));
        assert_eq!(machine.offences(WORKER), offence);
        let free = lease(&mut machine, 0, OTHER).unwrap();
        assert_eq!(free.slots, held.slots, "its lease is free at once");
        machine.step(Millis(0), Event::WorkerLeft { worker: OTHER });
        machine.step(Millis(0), Event::WorkerRegistered { worker: OTHER });
    }
    let refused = machine.step(Millis(0), Event::LeaseWanted { worker: WORKER });
    let expelled = Error::Expelled { worker: WORKER, offences: MOST_OFFENCES };
    assert_eq!(refused, [Action::Refuse(expelled.clone())]);
    assert_eq!(machine.check_worker(WORKER), Err(expelled));
    machine.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
    assert_eq!(machine.offences(WORKER), MOST_OFFENCES, "registering again forgives nothing");
    assert_eq!(machine.check_worker(OTHER), Ok(()));
}
