//! Rules for policy versions: who publishes them, and what follows when one is superseded or missing.

use super::*;

fn published(machine: &mut Machine, version: u64) -> Vec<Action> {
    machine.step(Millis(0), Event::VersionPublished { version: PolicyVersion(version) })
}

fn inspected(machine: &mut Machine, missing: &[u64]) -> Vec<Action> {
    let missing = missing.iter().copied().map(PolicyVersion).collect();
    machine.step(Millis(0), Event::VersionsInspected { missing })
}

#[test]
fn only_rank_0_of_the_current_group_publishes_and_supersedes_what_is_not_committed() {
    let mut machine = machine();
    assert!(matches!(machine.check_publisher(LEARNER), Err(Error::UnknownLearner { .. })));
    join(&mut machine);
    machine.check_publisher(LEARNER).unwrap();
    let join = Join { learner: OTHER, rank: 0, world_size: 1, ..Join::default() };
    machine.step(Millis(0), Event::RankJoined(join));
    assert!(machine.check_publisher(LEARNER).is_err(), "another process took its place");
    machine.check_publisher(OTHER).unwrap();
    let superseded = |machine: &Machine| (0..3).map(|v| machine.may_supersede(PolicyVersion(v))).collect();
    let before: Vec<bool> = superseded(&machine);
    assert_eq!(before, [false, true, false]);
}

#[test]
fn what_a_superseded_version_sampled_is_sampled_again() {
    let plan = Plan { max_policy_lag: 1, ..plan() };
    let mut machine = Machine::restore(plan, Recovered::default());
    machine.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
    work_off(&mut machine);
    assert_eq!(machine.waiting_groups(), 10, "steps 0 and 1, both by version 0");
    published(&mut machine, 1);
    let step = |step| Work::Training(Step(step)).slot(0, 0);
    machine.step(Millis(0), Event::VersionSuperseded { version: PolicyVersion(1) });
    assert_eq!(machine.waiting_groups(), 5, "step 0 stays");
    assert_eq!(machine.verdict(step(0), PolicyVersion(0)), Verdict::Repeated);
    assert_eq!(machine.verdict(step(1), PolicyVersion(1)), Verdict::Wanted);
    let held = lease(&mut machine, 0, WORKER).unwrap();
    assert_eq!((held.work, held.version), (Work::Training(Step(1)), PolicyVersion(1)));
    machine.step(Millis(0), Event::VersionSuperseded { version: PolicyVersion(1) });
    let beat = Event::Heartbeat { worker: WORKER, leases: vec![held.id] };
    assert_eq!(machine.step(Millis(0), beat)[0], Action::Lost(vec![held.id]), "by the content before");
}

#[test]
fn a_missing_version_is_not_leased_and_rank_0_is_asked_for_it() {
    let plan = Plan { steps: 4, evaluate_every_steps: 1, ..plan() };
    let recovered = Recovered { committed: 2, latest: 2, kept_from: 1, ..Recovered::default() };
    let mut machine = Machine::restore(plan, Recovered { evaluated: vec![PolicyVersion(0)], ..recovered });
    machine.step(Millis(0), Event::WorkerRegistered { worker: WORKER });
    join(&mut machine);
    assert_eq!(machine.needed_versions(), [0, 1, 2].map(PolicyVersion).into());
    assert_eq!(inspected(&mut machine, &[1, 2, 7])[0], Action::Wake);
    assert_eq!(inspected(&mut machine, &[1, 2]), [], "nothing has changed");
    assert_eq!(lease(&mut machine, 0, WORKER), None);
    let republish = |version| Action::Republish { version: PolicyVersion(version), first_step: Step(1) };
    assert_eq!(batch(&mut machine, 2), republish(2), "what it holds comes first");
    assert_eq!(batch(&mut machine, 1), republish(1), "it repeats a step on its way to version 2");
    assert!(published(&mut machine, 2).contains(&Action::Wake));
    assert_eq!(batch(&mut machine, 2), republish(1));
    assert_eq!(lease(&mut machine, 0, WORKER).unwrap().version, PolicyVersion(2));
    let lost = machine.step(Millis(0), Event::EvaluationLost { version: PolicyVersion(1) });
    assert!(lost.contains(&Action::EvaluationLost(PolicyVersion(1))));
    assert_eq!(batch(&mut machine, 2), Action::Wait);
    assert_eq!(machine.needed_versions(), [0, 2].map(PolicyVersion).into());
    assert_eq!(machine.step(Millis(0), Event::EvaluationLost { version: PolicyVersion(1) }), []);
}

#[test]
fn rank_0_publishes_a_missing_last_version_before_it_leaves() {
    let recovered = Recovered { committed: 2, latest: 2, ..Recovered::default() };
    let mut machine = Machine::restore(plan(), recovered);
    join(&mut machine);
    inspected(&mut machine, &[2]);
    assert!(matches!(batch(&mut machine, 2), Action::Republish { version: PolicyVersion(2), .. }));
    published(&mut machine, 2);
    assert!(matches!(batch(&mut machine, 2), Action::Leave { .. }));
    // A version that was dropped is missing from the start.
    let recovered = Recovered { committed: 1, latest: 0, ..Recovered::default() };
    assert_eq!(Machine::restore(plan(), recovered).latest(), PolicyVersion(1));
}
