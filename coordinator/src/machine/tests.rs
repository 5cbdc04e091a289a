//! Rules of the machine, one at a time.

mod properties;
mod reopening;
mod versions;

use podium_proto::convert::Slot;

use super::*;

const WORKER: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const LEARNER: Uuid = Uuid::from_u128(9);

fn plan() -> Plan {
    Plan {
        steps: 2,
        prompts_per_step: 5,
        prompts_per_lease: 2,
        refill_attempts: 0,
        max_policy_lag: 0,
        evaluate_every_steps: 0,
        evaluation_prompts: 3,
        evaluation_prompts_per_lease: 2,
        evaluations_may_end: false,
        lease_deadline: Millis(100),
    }
}

fn machine() -> Machine {
    let mut machine = Machine::restore(plan(), Recovered::default());
    for worker in [WORKER, OTHER] {
        machine.step(Millis(0), Event::WorkerRegistered { worker });
    }
    machine
}

fn lease(machine: &mut Machine, now: u64, worker: Uuid) -> Option<Lease> {
    match machine.step(Millis(now), Event::LeaseWanted { worker }).into_iter().find(|a| *a != Action::Wake) {
        Some(Action::Grant(lease)) => Some(lease),
        _ => None,
    }
}

fn filled(slots: &[Slot], zero_variance: bool) -> Vec<Filled> {
    slots.iter().map(|&slot| Filled { slot, zero_variance }).collect()
}

fn submit(machine: &mut Machine, now: u64, worker: Uuid, lease: &Lease) -> Vec<Action> {
    let filled = filled(&lease.slots, false);
    machine.step(Millis(now), Event::Scored { worker, lease: Some(lease.id), filled })
}

fn join(machine: &mut Machine) -> Vec<Action> {
    let join = Join { learner: LEARNER, rank: 0, world_size: 1, ..Join::default() };
    machine.step(Millis(0), Event::RankJoined(join))
}

fn batch(machine: &mut Machine, step: u64) -> Action {
    let event = Event::BatchWanted { rank: 0, learner: LEARNER, step: Step(step) };
    machine.step(Millis(0), event).remove(0)
}

/// Works off everything there is to lease.
fn work_off(machine: &mut Machine) -> Vec<Vec<Slot>> {
    let mut done = Vec::new();
    while let Some(lease) = lease(machine, 0, WORKER) {
        submit(machine, 0, WORKER, &lease);
        done.push(lease.slots);
    }
    done
}

#[test]
fn blocks_are_fixed_and_training_comes_first() {
    let (training, evaluation) = (Work::Training(Step(0)), Work::Evaluation(PolicyVersion(0)));
    let expected =
        [(training, 0..2), (training, 2..4), (training, 4..5), (evaluation, 0..2), (evaluation, 2..3)];
    let slots = |(work, indices): (Work, std::ops::Range<u32>)| indices.map(|i| work.slot(i, 0)).collect();
    assert_eq!(work_off(&mut machine()), expected.map(slots).to_vec() as Vec<Vec<Slot>>);
}

#[test]
fn a_silent_workers_lease_goes_to_somebody_else_with_the_same_content() {
    let mut machine = machine();
    let first = lease(&mut machine, 0, WORKER).unwrap();
    assert_ne!(lease(&mut machine, 99, OTHER).unwrap().slots, first.slots);
    machine.step(Millis(99), Event::Heartbeat { worker: OTHER, leases: vec![] });
    machine.step(Millis(99), Event::WorkerRegistered { worker: Uuid::from_u128(3) });
    let again = lease(&mut machine, 100, Uuid::from_u128(3)).unwrap();
    assert_eq!((again.work, &again.slots), (first.work, &first.slots));
    assert_ne!(again.id, first.id);
    let lost = machine.step(Millis(100), Event::Heartbeat { worker: WORKER, leases: vec![first.id] });
    assert!(lost.contains(&Action::Refuse(Error::UnknownWorker { worker: WORKER })));
    // The late result still counts, and the other worker's lease is void.
    let slot = first.slots[0];
    assert_eq!(machine.verdict(slot, PolicyVersion(0)), Verdict::Wanted);
    submit(&mut machine, 101, WORKER, &first);
    assert_eq!(machine.verdict(slot, PolicyVersion(0)), Verdict::Repeated);
    let beat = Event::Heartbeat { worker: Uuid::from_u128(3), leases: vec![again.id] };
    assert_eq!(machine.step(Millis(101), beat)[0], Action::Lost(vec![again.id]));
}

#[test]
fn heartbeats_keep_a_lease_and_free_one_whose_answer_was_lost() {
    let mut machine = machine();
    let first = lease(&mut machine, 0, WORKER).unwrap();
    let never_heard_of = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(lease(&mut machine, 0, WORKER), None, "two are enough for one worker");
    let mut beat = |now| {
        machine.step(Millis(now), Event::WorkerRegistered { worker: OTHER });
        machine.step(Millis(now), Event::Heartbeat { worker: WORKER, leases: vec![first.id] })
    };
    assert_eq!(beat(60), [Action::Lost(vec![])]);
    assert_eq!(beat(90), [Action::Lost(vec![]), Action::LeaseExpired(never_heard_of.id), Action::Wake]);
    assert_eq!(beat(180), [Action::Lost(vec![])]);
    assert_eq!(lease(&mut machine, 181, OTHER).unwrap().slots, never_heard_of.slots);
    assert_eq!(machine.step(Millis(182), Event::Tick), []);
    submit(&mut machine, 183, WORKER, &first);
    assert_eq!(machine.verdict(first.slots[0], PolicyVersion(0)), Verdict::Repeated);
}

#[test]
fn a_leaving_workers_lease_is_free_at_once() {
    let mut machine = machine();
    let first = lease(&mut machine, 0, WORKER).unwrap();
    assert!(machine.step(Millis(1), Event::WorkerLeft { worker: WORKER }).contains(&Action::Wake));
    assert_eq!(lease(&mut machine, 1, OTHER).unwrap().slots, first.slots);
}

#[test]
fn results_of_another_version_or_place_are_refused() {
    let machine = machine();
    let group = |step, index| Work::Training(Step(step)).slot(index, 0);
    assert_eq!(machine.verdict(group(0, 0), PolicyVersion(1)), Verdict::Refused);
    assert_eq!(machine.verdict(group(0, 5), PolicyVersion(0)), Verdict::Refused);
    assert_eq!(machine.verdict(group(1, 0), PolicyVersion(1)), Verdict::Refused, "not open yet");
    let evaluation = Work::Evaluation(PolicyVersion(1)).slot(0, 0);
    assert_eq!(machine.verdict(evaluation, PolicyVersion(1)), Verdict::Refused);
}

#[test]
fn groups_of_equal_rewards_are_sampled_again_within_their_block() {
    let plan = Plan { refill_attempts: 1, evaluation_prompts: 0, ..plan() };
    let mut machine = Machine::restore(plan, Recovered::default());
    for worker in [WORKER, OTHER] {
        machine.step(Millis(0), Event::WorkerRegistered { worker });
    }
    let slot = |index, attempt| Work::Training(Step(0)).slot(index, attempt);
    let first = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(first.slots, [slot(0, 0), slot(1, 0)]);
    let equal = |lease: &Lease| Event::Scored {
        worker: WORKER,
        lease: Some(lease.id),
        filled: filled(&lease.slots, true),
    };
    assert!(
        machine.step(Millis(0), equal(&first)).contains(&Action::Wake),
        "those who wait can have the next attempt"
    );
    assert_eq!(machine.sampling(), Progress { ready: 0, wanted: 5 });
    let again = lease(&mut machine, 0, OTHER).unwrap();
    assert_eq!(again.slots, [slot(0, 1), slot(1, 1)]);
    assert_eq!(machine.verdict(slot(0, 0), PolicyVersion(0)), Verdict::Repeated);
    assert_eq!(machine.verdict(slot(2, 1), PolicyVersion(0)), Verdict::Refused, "not begun");
    assert_eq!(machine.verdict(slot(0, 2), PolicyVersion(0)), Verdict::Refused, "never to be");
    // The first attempt comes once more: nothing happens, least of all to the lease on the second one.
    machine.step(Millis(0), equal(&first));
    let beat = Event::Heartbeat { worker: OTHER, leases: vec![again.id] };
    assert_eq!(machine.step(Millis(0), beat), [Action::Lost(vec![])]);
    machine.step(Millis(0), equal(&again));
    assert_eq!(machine.sampling(), Progress { ready: 2, wanted: 5 }, "the last attempt is kept");
    let rest: Vec<Slot> = work_off(&mut machine).concat();
    assert_eq!(rest, [slot(2, 0), slot(3, 0), slot(4, 0)]);
}

#[test]
fn steps_ahead_are_sampled_within_the_bound_while_the_learner_works() {
    let plan = Plan { max_policy_lag: 1, steps: 4, ..plan() };
    let mut machine = Machine::restore(plan, Recovered::default());
    machine.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
    join(&mut machine);
    let mut works = Vec::new();
    while let Some(lease) = lease(&mut machine, 0, WORKER) {
        assert_eq!(lease.version, PolicyVersion(0));
        submit(&mut machine, 0, WORKER, &lease);
        works.push(lease.work);
    }
    works.dedup();
    // The learner waits for step 0, people for the evaluation, nobody for step 1; step 2 would be two versions behind.
    let (now, ahead) = (Work::Training(Step(0)), Work::Training(Step(1)));
    assert_eq!(works, [now, Work::Evaluation(PolicyVersion(0)), ahead]);
    assert_eq!(batch(&mut machine, 0), Action::ServeBatch);
    assert_eq!(batch(&mut machine, 1), Action::Wait, "full, and not its turn");
    machine.step(Millis(0), Event::VersionPublished { version: PolicyVersion(1) });
    machine.step(Millis(0), Event::StepCommitted { step: Step(0) });
    assert_eq!(batch(&mut machine, 1), Action::ServeBatch);
    let next = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!((next.work, next.version), (Work::Training(Step(2)), PolicyVersion(1)));
    let verdict =
        |step, version| machine.verdict(Work::Training(Step(step)).slot(0, 0), PolicyVersion(version));
    assert_eq!(verdict(2, 1), Verdict::Wanted);
    assert_eq!(verdict(2, 0), Verdict::Refused, "too old");
    assert_eq!(verdict(2, 2), Verdict::Refused, "not there yet");
    assert_eq!(verdict(1, 0), Verdict::Repeated);
    assert_eq!(verdict(3, 2), Verdict::Refused, "not open yet");
}

#[test]
fn a_run_from_start_to_end() {
    let mut machine = machine();
    assert_eq!(machine.phase(), Phase::Starting);
    assert_eq!(batch(&mut machine, 0), Action::Rejoin);
    assert!(join(&mut machine).contains(&Action::KeepWorld));
    assert_eq!(batch(&mut machine, 0), Action::Wait);
    assert_eq!(
        machine.check_commit(LEARNER, Step(0)),
        Err(Error::NotSampled { step: Step(0), ready: 0, wanted: 5 })
    );
    for step in 0..2 {
        work_off(&mut machine);
        assert_eq!(batch(&mut machine, step), Action::ServeBatch);
        let version = Step(step).produces();
        assert!(matches!(machine.check_commit(LEARNER, Step(step)), Err(Error::NotPublished { .. })));
        assert!(machine.check_publish(PolicyVersion(step + 2)).is_err());
        machine.check_publish(version).unwrap();
        machine.step(Millis(0), Event::VersionPublished { version });
        assert_eq!(machine.missed_commit(0, LEARNER, Step(step + 1)), Some(Step(step)));
        assert_eq!(machine.check_commit(LEARNER, Step(step)), Ok((0, true)));
        machine.step(Millis(0), Event::StepCommitted { step: Step(step) });
        assert_eq!(machine.check_commit(LEARNER, Step(step)), Ok((0, false)));
    }
    assert!(matches!(batch(&mut machine, 2), Action::Leave { .. }));
    assert_eq!(machine.phase(), Phase::Evaluating);
    let last = lease(&mut machine, 0, WORKER).unwrap();
    submit(&mut machine, 0, WORKER, &last);
    let last = lease(&mut machine, 0, WORKER).unwrap();
    let actions = submit(&mut machine, 0, WORKER, &last);
    assert!(actions.contains(&Action::EvaluationComplete(PolicyVersion(2))));
    assert!(actions.contains(&Action::RunComplete));
    assert!(!machine.everyone_left());
    for worker in [WORKER, OTHER] {
        let answer = machine.step(Millis(0), Event::LeaseWanted { worker });
        assert!(matches!(answer[0], Action::Leave { .. }));
        machine.step(Millis(0), Event::WorkerLeft { worker });
    }
    assert!(machine.everyone_left());
}

#[test]
fn groups_go_once_every_rank_has_a_checkpoint_after_them() {
    let mut machine = Machine::restore(plan(), Recovered { committed: 1, latest: 1, ..Recovered::default() });
    for (rank, process) in [(0, 5), (1, 6)] {
        let learner = Uuid::from_u128(process);
        let join = Join { learner, rank, world_size: 2, ..Join::default() };
        machine.step(Millis(0), Event::RankJoined(join));
    }
    let mut keep = |rank| machine.step(Millis(0), Event::CheckpointKept { rank, step: Step(1) });
    assert_eq!(keep(0), []);
    assert_eq!(keep(1), [Action::DropGroups { before: Step(1) }]);
    let event = Event::BatchWanted { rank: 0, learner: Uuid::from_u128(5), step: Step(0) };
    assert!(matches!(machine.step(Millis(0), event)[0], Action::Refuse(Error::StepGone { .. })));
}

#[test]
fn a_drain_sends_everybody_home() {
    let mut machine = machine();
    join(&mut machine);
    machine.step(Millis(0), Event::DrainWanted { reason: "enough".into() });
    assert_eq!(machine.phase(), Phase::Draining);
    assert_eq!(batch(&mut machine, 0), Action::Leave { reason: "enough".into() });
    let answer = machine.step(Millis(0), Event::LeaseWanted { worker: WORKER });
    assert_eq!(answer, [Action::Leave { reason: "enough".into() }]);
}

/// Makes the step that is due, if it is open.
fn train(machine: &mut Machine) -> bool {
    work_off(machine);
    let step = machine.committed();
    if batch(machine, step.0) != Action::ServeBatch {
        return false;
    }
    machine.step(Millis(0), Event::VersionPublished { version: step.produces() });
    machine.step(Millis(0), Event::StepCommitted { step });
    true
}

fn judge(machine: &mut Machine, version: u64, end: Option<&str>) -> Vec<Action> {
    let end = end.map(str::to_owned);
    machine.step(Millis(0), Event::EvaluationJudged { version: PolicyVersion(version), end })
}

#[test]
fn training_waits_for_a_judgement_that_may_end_the_run() {
    let plan = Plan { steps: 9, evaluate_every_steps: 2, evaluations_may_end: true, ..plan() };
    let mut machine = Machine::restore(plan.clone(), Recovered::default());
    machine.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
    join(&mut machine);
    assert!(train(&mut machine) && train(&mut machine));
    assert!(!train(&mut machine), "version 0 has not been judged, and may end the run with version 2");
    assert_eq!(machine.to_judge(), Some(PolicyVersion(0)));
    assert_eq!(judge(&mut machine, 2, Some("too early")), [], "versions are judged in order");
    assert!(judge(&mut machine, 0, None).contains(&Action::Wake));
    assert!(train(&mut machine) && train(&mut machine) && !train(&mut machine));
    judge(&mut machine, 2, Some("enough"));
    assert_eq!(machine.last_version(), PolicyVersion(4));
    assert_eq!(batch(&mut machine, 4), Action::Leave { reason: "enough".into() });
    assert!(machine.is_complete(), "version 4 was evaluated while training waited");
    assert_eq!(machine.over().as_deref(), Some("enough"));

    let ended_by = Some((PolicyVersion(2), "enough".to_owned()));
    let evaluated = vec![PolicyVersion(0), PolicyVersion(2)];
    let recovered = Recovered { committed: 4, latest: 4, evaluated, ended_by, ..Recovered::default() };
    let mut restored = Machine::restore(plan, recovered);
    assert_eq!((restored.last_version(), restored.phase()), (PolicyVersion(4), Phase::Evaluating));
    restored.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
    let is_last = |slot: &Slot| matches!(slot, Slot::Evaluation { version: PolicyVersion(4), .. });
    assert!(work_off(&mut restored).iter().flatten().all(is_last));
    assert!(restored.is_complete());
}

#[test]
fn a_run_that_no_evaluation_may_end_waits_for_none() {
    let plan = Plan { steps: 9, evaluate_every_steps: 2, ..plan() };
    let mut machine = Machine::restore(plan, Recovered::default());
    machine.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
    join(&mut machine);
    assert!((0..9).all(|_| train(&mut machine)));
}
