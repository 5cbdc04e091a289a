//! Whole runs under many schedules, and the results that must not depend on the schedule.

use super::*;

/// Returns the age of each group of a run, in versions.
fn lags(trained: &BTreeMap<u64, Vec<Content>>) -> impl Iterator<Item = u64> {
    trained.iter().flat_map(|(step, groups)| groups.iter().map(move |group| step - group.version.0))
}

fn slots(trained: &BTreeMap<u64, Vec<Content>>) -> Vec<Slot> {
    trained.values().flatten().map(|group| group.slot).collect()
}

#[test]
fn every_schedule_completes_with_the_same_batches() {
    let expected = Simulation::new(schedule(), 0, 1, 1).run();
    assert_eq!(expected.0.len(), 7);
    assert_eq!(expected.1.len(), 5 * 4, "versions 0, 3, 6 and 7 are evaluated");
    let attempts: BTreeSet<u32> = slots(&expected.0).into_iter().map(|slot| Work::of(slot).2).collect();
    assert_eq!(attempts, [0, 1, 2].into(), "groups of equal rewards were replaced");
    for seed in 1..=150 {
        let (workers, ranks) = (1 + seed % 5, 1 + seed as usize % 3);
        assert_eq!(Simulation::new(schedule(), seed, workers, ranks).run(), expected, "seed {seed}");
    }
}

#[test]
fn groups_that_no_rank_can_train_on_are_sampled_again_and_change_nothing() {
    let expected = Simulation::new(schedule(), 0, 1, 1).run();
    let mut all_set_aside = 0;
    for seed in 1..=150 {
        let (workers, ranks) = (1 + seed % 5, 1 + seed as usize % 3);
        let simulation = Simulation {
            unusable_one_in: 2 + seed % 20,
            ..Simulation::new(schedule(), seed, workers, ranks)
        };
        let (trained, answers, set_aside) = simulation.run_counting();
        assert_eq!((trained, answers), expected, "seed {seed}");
        all_set_aside += set_aside;
    }
    assert!(all_set_aside > 1_000, "{all_set_aside} groups were set aside");
    // In asynchronous mode the versions may differ, but the slots and their attempts may not.
    for seed in 1..=40 {
        let schedule = Schedule { max_policy_lag: 2, ..schedule() };
        let simulation =
            Simulation { unusable_one_in: 5, ..Simulation::new(schedule, seed, 1 + seed % 5, 2) };
        let (trained, answers, _) = simulation.run_counting();
        assert_eq!(slots(&trained), slots(&expected.0), "seed {seed}");
        assert_eq!(answers, expected.1, "an evaluation is of one version");
    }
}

#[test]
fn in_asynchronous_mode_the_bound_holds_and_trained_groups_do_not_depend_on_durations() {
    let synchronous = Simulation::new(schedule(), 0, 1, 1).run();
    for max_policy_lag in 1..=3 {
        let schedule = Schedule { max_policy_lag, ..schedule() };
        let mut seen = BTreeSet::new();
        for seed in 1..=60 {
            let (workers, ranks) = (1 + seed % 5, 1 + seed as usize % 3);
            let (trained, answers) = Simulation::new(schedule.clone(), seed, workers, ranks).run();
            // The prompts are the same for all worker speeds, and so are the lengths: no short completion
            // replaced a long one.
            assert_eq!(slots(&trained), slots(&synchronous.0), "seed {seed}");
            assert_eq!(answers, synchronous.1, "an evaluation is of one version");
            seen.extend(lags(&trained));
        }
        assert_eq!(seen, (0..=max_policy_lag).collect(), "every allowed lag occurs");
    }
}

#[test]
fn an_evaluation_that_ends_the_run_ends_every_schedule_at_the_same_step() {
    let simulation = |seed: u64, max_policy_lag| {
        let schedule = Schedule { evaluations_may_end: true, max_policy_lag, ..schedule() };
        let (workers, ranks) = (1 + seed % 5, 1 + seed as usize % 3);
        Simulation { ends: Some(PolicyVersion(0)), ..Simulation::new(schedule, seed, workers, ranks) }
    };
    let expected = simulation(0, 0).run();
    assert_eq!(expected.0.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(expected.1.len(), 5 * 2, "versions 0 and 3 are evaluated");
    for seed in 1..=60 {
        assert_eq!(simulation(seed, 0).run(), expected, "seed {seed}");
        // In asynchronous mode the sampling versions may differ, but the steps may not.
        let (trained, answers) = simulation(seed, 2).run();
        assert_eq!(slots(&trained), slots(&expected.0), "seed {seed}");
        assert_eq!(answers, expected.1, "seed {seed}");
    }
}
