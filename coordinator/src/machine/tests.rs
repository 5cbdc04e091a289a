//! Tests of single rules of the machine.

mod properties;
mod reopening;
mod simulation_clock;
mod versions;

use podium_proto::convert::Slot;

use super::*;

const WORKER: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const LEARNER: Uuid = Uuid::from_u128(9);

fn schedule() -> Schedule {
    Schedule {
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
    let mut machine = Machine::restore(schedule(), Recovered::default());
    for worker in [WORKER, OTHER] {
        machine.register_worker(Millis(0), worker);
    }
    machine
}

fn lease(machine: &mut Machine, now: u64, worker: Uuid) -> Option<Lease> {
    match machine.request_lease(Millis(now), worker).reply {
        Ok(LeaseReply::Granted(lease)) => Some(lease),
        _ => None,
    }
}

fn filled(slots: &[Slot], zero_variance: bool) -> Vec<Filled> {
    slots.iter().map(|&slot| Filled { slot, zero_variance }).collect()
}

fn submit(machine: &mut Machine, now: u64, worker: Uuid, lease: &Lease) -> Vec<Effect> {
    let filled = filled(&lease.slots, false);
    machine.results_stored(Millis(now), (worker, Some(lease.id)), &filled).effects
}

fn beat(machine: &mut Machine, now: u64, worker: Uuid, leases: &[LeaseId]) -> Result<Vec<LeaseId>, Error> {
    machine.heartbeat(Millis(now), worker, leases).reply
}

fn join(machine: &mut Machine) -> Vec<Effect> {
    let join = Join { learner: LEARNER, rank: 0, world_size: 1, ..Join::default() };
    machine.join(Millis(0), join).effects
}

fn batch(machine: &mut Machine, step: u64) -> Result<BatchReply, Error> {
    machine.request_batch(Millis(0), 0, LEARNER, Step(step)).reply
}

const READY: Result<BatchReply, Error> = Ok(BatchReply::Ready { world_size: 1 });
const NOT_READY: Result<BatchReply, Error> = Ok(BatchReply::NotReady);

fn over(reason: &str) -> BatchReply {
    BatchReply::RunOver(reason.to_owned())
}

/// Samples all work that can be leased.
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
fn the_lease_of_a_silent_worker_is_reassigned_with_the_same_content() {
    let mut machine = machine();
    let first = lease(&mut machine, 0, WORKER).unwrap();
    assert_ne!(lease(&mut machine, 99, OTHER).unwrap().slots, first.slots);
    machine.heartbeat(Millis(99), OTHER, &[]);
    machine.register_worker(Millis(99), Uuid::from_u128(3));
    let again = lease(&mut machine, 100, Uuid::from_u128(3)).unwrap();
    assert_eq!((again.work, &again.slots), (first.work, &first.slots));
    assert_ne!(again.id, first.id);
    assert_eq!(beat(&mut machine, 100, WORKER, &[first.id]), Err(Error::UnknownWorker { worker: WORKER }));
    // The late result is accepted, and the other worker's lease is void.
    let slot = first.slots[0];
    assert_eq!(machine.verdict(slot, PolicyVersion(0)), Verdict::Wanted);
    submit(&mut machine, 101, WORKER, &first);
    assert_eq!(machine.verdict(slot, PolicyVersion(0)), Verdict::Repeated);
    assert_eq!(beat(&mut machine, 101, Uuid::from_u128(3), &[again.id]), Ok(vec![again.id]));
}

#[test]
fn heartbeats_keep_a_lease_and_free_one_whose_answer_was_lost() {
    let mut machine = machine();
    let first = lease(&mut machine, 0, WORKER).unwrap();
    let never_heard_of = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(lease(&mut machine, 0, WORKER), None, "two are enough for one worker");
    let mut beat = |now| {
        machine.register_worker(Millis(now), OTHER);
        let Transition { reply, effects } = machine.heartbeat(Millis(now), WORKER, &[first.id]);
        (reply, effects)
    };
    assert_eq!(beat(60), (Ok(vec![]), vec![]));
    assert_eq!(beat(90), (Ok(vec![]), vec![Effect::LeaseExpired(never_heard_of.id), Effect::Wake]));
    assert_eq!(beat(180), (Ok(vec![]), vec![]));
    assert_eq!(lease(&mut machine, 181, OTHER).unwrap().slots, never_heard_of.slots);
    assert_eq!(machine.tick(Millis(182)).effects, []);
    submit(&mut machine, 183, WORKER, &first);
    assert_eq!(machine.verdict(first.slots[0], PolicyVersion(0)), Verdict::Repeated);
}

#[test]
fn the_lease_of_a_disconnected_worker_is_free_immediately() {
    let mut machine = machine();
    let first = lease(&mut machine, 0, WORKER).unwrap();
    assert!(machine.disconnect_worker(Millis(1), WORKER).effects.contains(&Effect::Wake));
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
    let schedule = Schedule { refill_attempts: 1, evaluation_prompts: 0, ..schedule() };
    let mut machine = Machine::restore(schedule, Recovered::default());
    for worker in [WORKER, OTHER] {
        machine.register_worker(Millis(0), worker);
    }
    let slot = |index, attempt| Work::Training(Step(0)).slot(index, attempt);
    let first = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!(first.slots, [slot(0, 0), slot(1, 0)]);
    let equal = |machine: &mut Machine, lease: &Lease| {
        machine.results_stored(Millis(0), (WORKER, Some(lease.id)), &filled(&lease.slots, true)).effects
    };
    assert!(equal(&mut machine, &first).contains(&Effect::Wake), "those who wait can have the next attempt");
    assert_eq!(machine.sampling(), Progress { ready: 0, wanted: 5 });
    let again = lease(&mut machine, 0, OTHER).unwrap();
    assert_eq!(again.slots, [slot(0, 1), slot(1, 1)]);
    assert_eq!(machine.verdict(slot(0, 0), PolicyVersion(0)), Verdict::Repeated);
    assert_eq!(machine.verdict(slot(2, 1), PolicyVersion(0)), Verdict::Refused, "not begun");
    assert_eq!(machine.verdict(slot(0, 2), PolicyVersion(0)), Verdict::Refused, "never to be");
    // A repeated result of the first attempt changes nothing, and does not affect the lease on the second
    // attempt.
    equal(&mut machine, &first);
    assert_eq!(beat(&mut machine, 0, OTHER, &[again.id]), Ok(vec![]));
    equal(&mut machine, &again);
    assert_eq!(machine.sampling(), Progress { ready: 2, wanted: 5 }, "the last attempt is kept");
    let rest: Vec<Slot> = work_off(&mut machine).concat();
    assert_eq!(rest, [slot(2, 0), slot(3, 0), slot(4, 0)]);
}

#[test]
fn steps_ahead_are_sampled_within_the_bound_while_the_learner_works() {
    let schedule = Schedule { max_policy_lag: 1, steps: 4, ..schedule() };
    let mut machine = Machine::restore(schedule, Recovered::default());
    machine.register_worker(Millis(0), WORKER);
    join(&mut machine);
    let mut works = Vec::new();
    while let Some(lease) = lease(&mut machine, 0, WORKER) {
        assert_eq!(lease.version, PolicyVersion(0));
        submit(&mut machine, 0, WORKER, &lease);
        works.push(lease.work);
    }
    works.dedup();
    // The learner waits for step 0, a user for the evaluation, and nothing for step 1; step 2 would be two
    // versions behind.
    let (now, ahead) = (Work::Training(Step(0)), Work::Training(Step(1)));
    assert_eq!(works, [now, Work::Evaluation(PolicyVersion(0)), ahead]);
    assert_eq!(batch(&mut machine, 0), READY);
    assert_eq!(batch(&mut machine, 1), NOT_READY, "full, and not its turn");
    machine.version_published(Millis(0), PolicyVersion(1));
    machine.step_committed(Millis(0), Step(0));
    assert_eq!(batch(&mut machine, 1), READY);
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
    assert_eq!(batch(&mut machine, 0), Ok(BatchReply::Rejoin));
    assert!(join(&mut machine).contains(&Effect::StoreRankGroup));
    assert_eq!(batch(&mut machine, 0), NOT_READY);
    assert_eq!(
        machine.check_commit(LEARNER, Step(0)),
        Err(Error::NotSampled { step: Step(0), ready: 0, wanted: 5 })
    );
    for step in 0..2 {
        work_off(&mut machine);
        assert_eq!(batch(&mut machine, step), READY);
        let version = Step(step).produces();
        assert!(matches!(machine.check_commit(LEARNER, Step(step)), Err(Error::NotPublished { .. })));
        assert!(machine.check_publish(PolicyVersion(step + 2)).is_err());
        machine.check_publish(version).unwrap();
        machine.version_published(Millis(0), version);
        assert_eq!(machine.missed_commit(0, LEARNER, Step(step + 1)), Some(Step(step)));
        assert_eq!(machine.check_commit(LEARNER, Step(step)), Ok((0, true)));
        machine.step_committed(Millis(0), Step(step));
        assert_eq!(machine.check_commit(LEARNER, Step(step)), Ok((0, false)));
    }
    assert_eq!(batch(&mut machine, 2), Ok(over("all steps are done")));
    assert_eq!(machine.phase(), Phase::Evaluating);
    let last = lease(&mut machine, 0, WORKER).unwrap();
    submit(&mut machine, 0, WORKER, &last);
    let last = lease(&mut machine, 0, WORKER).unwrap();
    let effects = submit(&mut machine, 0, WORKER, &last);
    assert_eq!(effects, [Effect::Wake, Effect::RunComplete, Effect::Wake]);
    assert_eq!(machine.evaluation_to_close(), Some(PolicyVersion(0)));
    machine.evaluation_closed(Millis(0), PolicyVersion(0), None);
    assert_eq!(machine.evaluation_to_close(), Some(PolicyVersion(2)));
    assert!(!machine.all_disconnected());
    for worker in [WORKER, OTHER] {
        let reply = machine.request_lease(Millis(0), worker).reply;
        assert_eq!(reply, Ok(LeaseReply::RunOver("the run is complete".to_owned())));
        machine.disconnect_worker(Millis(0), worker);
    }
    assert!(machine.all_disconnected());
}

#[test]
fn groups_go_once_every_rank_has_a_checkpoint_after_them() {
    let mut machine =
        Machine::restore(schedule(), Recovered { committed: 1, latest: 1, ..Recovered::default() });
    for (rank, process) in [(0, 5), (1, 6)] {
        let learner = Uuid::from_u128(process);
        let join = Join { learner, rank, world_size: 2, ..Join::default() };
        machine.join(Millis(0), join);
    }
    let mut keep = |rank| machine.checkpoint_stored(Millis(0), rank, Step(1)).effects;
    assert_eq!(keep(0), []);
    assert_eq!(keep(1), [Effect::DropGroups { before: Step(1) }]);
    let reply = machine.request_batch(Millis(0), 0, Uuid::from_u128(5), Step(0)).reply;
    assert!(matches!(reply, Err(Error::StepGone { .. })));
}

#[test]
fn a_drain_shuts_workers_and_ranks_down() {
    let mut machine = machine();
    join(&mut machine);
    machine.drain(Millis(0), "enough".into());
    assert_eq!(machine.phase(), Phase::Draining);
    assert_eq!(batch(&mut machine, 0), Ok(over("enough")));
    let reply = machine.request_lease(Millis(0), WORKER).reply;
    assert_eq!(reply, Ok(LeaseReply::RunOver("enough".to_owned())));
}

/// Makes the next step, if it is open.
fn train(machine: &mut Machine) -> bool {
    work_off(machine);
    let step = machine.committed();
    if batch(machine, step.0) != READY {
        return false;
    }
    machine.version_published(Millis(0), step.produces());
    machine.step_committed(Millis(0), step);
    true
}

fn close(machine: &mut Machine, version: u64, end: Option<&str>) -> Vec<Effect> {
    let end = end.map(str::to_owned);
    machine.evaluation_closed(Millis(0), PolicyVersion(version), end).effects
}

#[test]
fn training_waits_for_an_evaluation_that_may_end_the_run() {
    let schedule = Schedule { steps: 9, evaluate_every_steps: 2, evaluations_may_end: true, ..schedule() };
    let mut machine = Machine::restore(schedule.clone(), Recovered::default());
    machine.register_worker(Millis(0), WORKER);
    join(&mut machine);
    assert!(train(&mut machine) && train(&mut machine));
    assert!(
        !train(&mut machine),
        "the evaluation of version 0 is not closed, and may end the run with version 2"
    );
    assert_eq!(machine.next_evaluation(), Some(PolicyVersion(0)));
    assert_eq!(close(&mut machine, 2, Some("too early")), [], "evaluations are closed in order");
    assert!(close(&mut machine, 0, None).contains(&Effect::Wake));
    assert!(train(&mut machine) && train(&mut machine) && !train(&mut machine));
    close(&mut machine, 2, Some("enough"));
    assert_eq!(machine.last_version(), PolicyVersion(4));
    assert_eq!(batch(&mut machine, 4), Ok(over("enough")));
    assert!(machine.is_complete(), "version 4 was evaluated while training waited");
    assert_eq!(machine.over().as_deref(), Some("enough"));

    let ended_by = Some((PolicyVersion(2), "enough".to_owned()));
    let evaluated = vec![PolicyVersion(0), PolicyVersion(2)];
    let recovered = Recovered { committed: 4, latest: 4, evaluated, ended_by, ..Recovered::default() };
    let mut restored = Machine::restore(schedule, recovered);
    assert_eq!((restored.last_version(), restored.phase()), (PolicyVersion(4), Phase::Evaluating));
    restored.register_worker(Millis(0), WORKER);
    let is_last = |slot: &Slot| matches!(slot, Slot::Evaluation { version: PolicyVersion(4), .. });
    assert!(work_off(&mut restored).iter().flatten().all(is_last));
    assert!(restored.is_complete());
}

#[test]
fn a_run_that_no_evaluation_may_end_waits_for_none() {
    let schedule = Schedule { steps: 9, evaluate_every_steps: 2, ..schedule() };
    let mut machine = Machine::restore(schedule, Recovered::default());
    machine.register_worker(Millis(0), WORKER);
    join(&mut machine);
    assert!((0..9).all(|_| train(&mut machine)));
}
