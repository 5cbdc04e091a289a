//! Rules for policy versions: publication, replacement, and missing versions.

use super::*;

fn published(machine: &mut Machine, version: u64) -> Vec<Effect> {
    machine.version_published(Millis(0), PolicyVersion(version)).effects
}

fn inspected(machine: &mut Machine, missing: &[u64]) -> Vec<Effect> {
    let missing = missing.iter().copied().map(PolicyVersion).collect();
    machine.versions_inspected(Millis(0), missing).effects
}

#[test]
fn only_rank_0_of_the_current_group_publishes_and_supersedes_uncommitted_versions() {
    let mut machine = machine();
    assert!(matches!(machine.check_publisher(LEARNER), Err(Error::UnknownLearner { .. })));
    join(&mut machine);
    machine.check_publisher(LEARNER).unwrap();
    let join = Join { learner: OTHER, rank: 0, world_size: 1, ..Join::default() };
    machine.join(Millis(0), join);
    assert!(machine.check_publisher(LEARNER).is_err(), "another process took its place");
    machine.check_publisher(OTHER).unwrap();
    let superseded = |machine: &Machine| (0..3).map(|v| machine.may_supersede(PolicyVersion(v))).collect();
    let before: Vec<bool> = superseded(&machine);
    assert_eq!(before, [false, true, false]);
}

#[test]
fn results_of_a_superseded_version_are_sampled_again() {
    let schedule = Schedule { max_policy_lag: 1, ..schedule() };
    let mut machine = Machine::restore(schedule, Recovered::default());
    machine.register_worker(Millis(0), WORKER);
    work_off(&mut machine);
    assert_eq!(machine.waiting_groups(), 10, "steps 0 and 1, both by version 0");
    published(&mut machine, 1);
    let step = |step| Work::Training(Step(step)).slot(0, 0);
    machine.version_superseded(Millis(0), PolicyVersion(1));
    assert_eq!(machine.waiting_groups(), 5, "step 0 stays");
    assert_eq!(machine.verdict(step(0), PolicyVersion(0)), Verdict::Repeated);
    assert_eq!(machine.verdict(step(1), PolicyVersion(1)), Verdict::Wanted);
    let held = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!((held.work, held.version), (Work::Training(Step(1)), PolicyVersion(1)));
    machine.version_superseded(Millis(0), PolicyVersion(1));
    assert_eq!(beat(&mut machine, 0, WORKER, &[held.id]), Ok(vec![held.id]), "the old content samples it");
}

#[test]
fn the_next_step_is_sampled_between_publication_and_commit() {
    let mut machine = machine();
    join(&mut machine);
    work_off(&mut machine);
    assert_eq!(lease(&mut machine, 0, WORKER), None);
    assert!(published(&mut machine, 1).contains(&Effect::Wake));
    let next = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!((next.work, next.version), (Work::Training(Step(1)), PolicyVersion(1)));
    submit(&mut machine, 0, WORKER, &next);
    let slots: Vec<Slot> = work_off(&mut machine).concat();
    assert_eq!(slots, [2, 3, 4].map(|index| Work::Training(Step(1)).slot(index, 0)), "step 2 has no version");
    assert_eq!(batch(&mut machine, 1), NOT_READY, "full, and not its turn");
    let verdict = |machine: &Machine| machine.verdict(next.slots[0], PolicyVersion(1));
    assert_eq!(verdict(&machine), Verdict::Repeated);

    // A restart retains the results, and a superseded version removes them.
    let recovered = Recovered { latest: 1, filled: filled(&next.slots, false), ..Recovered::default() };
    let mut restored = Machine::restore(schedule(), recovered);
    assert_eq!(verdict(&restored), Verdict::Repeated);
    assert_eq!(restored.waiting_groups(), 2);
    restored.version_superseded(Millis(0), PolicyVersion(1));
    assert_eq!(verdict(&restored), Verdict::Wanted);

    machine.step_committed(Millis(0), Step(0));
    assert_eq!(batch(&mut machine, 1), READY);
}

#[test]
fn a_missing_version_is_not_leased_and_is_requested_from_rank_0() {
    let schedule = Schedule { steps: 4, evaluate_every_steps: 1, ..schedule() };
    let recovered = Recovered { committed: 2, latest: 2, kept_from: 1, ..Recovered::default() };
    let mut machine =
        Machine::restore(schedule, Recovered { evaluated: vec![PolicyVersion(0)], ..recovered });
    machine.register_worker(Millis(0), WORKER);
    join(&mut machine);
    assert_eq!(machine.needed_versions(), [0, 1, 2].map(PolicyVersion).into());
    assert_eq!(inspected(&mut machine, &[1, 2, 7])[0], Effect::Wake);
    assert_eq!(inspected(&mut machine, &[1, 2]), [], "nothing has changed");
    assert_eq!(lease(&mut machine, 0, WORKER), None);
    let republish =
        |version| Ok(BatchReply::Republish { version: PolicyVersion(version), first_step: Step(1) });
    assert_eq!(batch(&mut machine, 2), republish(2), "what it holds comes first");
    assert_eq!(batch(&mut machine, 1), republish(1), "it repeats a step on its way to version 2");
    assert!(published(&mut machine, 2).contains(&Effect::Wake));
    assert_eq!(batch(&mut machine, 2), republish(1));
    assert_eq!(lease(&mut machine, 0, WORKER).unwrap().version, PolicyVersion(2));
    let abandon = |machine: &mut Machine| machine.evaluation_abandoned(Millis(0), PolicyVersion(1)).effects;
    assert_eq!(abandon(&mut machine), [Effect::Wake]);
    assert_eq!(machine.next_evaluation(), Some(PolicyVersion(2)), "there is nothing to close");
    assert_eq!(batch(&mut machine, 2), NOT_READY);
    assert_eq!(machine.needed_versions(), [0, 2].map(PolicyVersion).into());
    assert_eq!(abandon(&mut machine), []);
}

#[test]
fn rank_0_publishes_a_missing_last_version_before_it_shuts_down() {
    let recovered = Recovered { committed: 2, latest: 2, ..Recovered::default() };
    let mut machine = Machine::restore(schedule(), recovered);
    join(&mut machine);
    inspected(&mut machine, &[2]);
    assert!(matches!(batch(&mut machine, 2), Ok(BatchReply::Republish { version: PolicyVersion(2), .. })));
    published(&mut machine, 2);
    assert!(matches!(batch(&mut machine, 2), Ok(BatchReply::RunOver(_))));
    // A dropped version is missing from the start.
    let recovered = Recovered { committed: 1, latest: 0, ..Recovered::default() };
    assert_eq!(Machine::restore(schedule(), recovered).latest(), PolicyVersion(1));
}

#[test]
fn an_evaluation_that_was_abandoned_early_is_passed_over_in_its_turn() {
    let schedule = Schedule { steps: 3, evaluate_every_steps: 1, ..schedule() };
    let recovered = Recovered { committed: 2, latest: 2, ..Recovered::default() };
    let recovered = Recovered { evaluated: vec![PolicyVersion(0)], ..recovered };
    let mut machine = Machine::restore(schedule.clone(), recovered.clone());
    machine.register_worker(Millis(0), WORKER);
    machine.evaluation_abandoned(Millis(0), PolicyVersion(2));
    // The same holds after a restart.
    let recovered = Recovered { abandoned: vec![PolicyVersion(2)], ..recovered };
    let mut restored = Machine::restore(schedule, recovered);
    restored.register_worker(Millis(0), WORKER);
    for mut machine in [machine, restored] {
        assert_eq!(machine.evaluation_to_close(), None, "version 1 has no answers yet");
        work_off(&mut machine);
        assert_eq!(machine.evaluation_to_close(), Some(PolicyVersion(1)));
        machine.evaluation_closed(Millis(0), PolicyVersion(1), None);
        assert_eq!(
            (machine.next_evaluation(), machine.evaluation_to_close()),
            (Some(PolicyVersion(3)), None)
        );
    }
}
