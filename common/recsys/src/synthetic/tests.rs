use std::fs;
use std::path::Path;

use super::universe::{Era, Universe};
use super::*;
use crate::dataset::{Dataset, HeldOut};
use crate::ids::ItemId;
use crate::ranking::knn::Question;
use crate::ranking::{Baseline, Metric, by_score, rank_of};
use crate::task::{Case, Task};

fn small() -> World {
    World { train_users: 40, test_users: 1_500, ..World::default() }
}

/// A world whose catalogue renews itself.
fn renewing() -> World {
    World { new_items_per_pair: 2, popularity_skew: 2.0, p_switch: 0.2, p_look: 0.9, ..small() }
}

#[test]
fn the_data_set_is_a_function_of_world_and_seed() {
    let world = small();
    assert_eq!(generate(&world).unwrap(), generate(&world).unwrap());
    assert_ne!(generate(&world).unwrap(), generate(&World { seed: 6, ..world }).unwrap());
}

#[test]
fn the_data_set_round_trips_and_is_deterministic() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = small();
    let folders = [first.path().join("demo"), second.path().join("demo")];
    for folder in &folders {
        write_data(&world, folder).unwrap();
    }
    let mut files: Vec<_> =
        fs::read_dir(&folders[0]).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files.len(), 7, "{files:?}");
    for name in &files {
        assert_eq!(fs::read(folders[0].join(name)).unwrap(), fs::read(folders[1].join(name)).unwrap());
    }
    let read = Dataset::load(&folders[0], &data_options(&world, &folders[0])).unwrap();
    assert_eq!(read, Dataset { name: "demo".to_owned(), ..generate(&world).unwrap() });
}

#[test]
fn items_are_unique_per_user_and_reasoning_is_of_training_users() {
    let dataset = generate(&small()).unwrap();
    let held_out = || dataset.validation.iter().chain(&dataset.test);
    for user in dataset.train.iter().chain(held_out()) {
        let mut items = user.items.clone();
        items.sort();
        items.dedup();
        assert_eq!(items.len(), 9);
    }
    assert_eq!(dataset.reasoning.len(), 40);
    assert!(held_out().all(|user| !dataset.reasoning.contains_key(&user.id)));
}

#[test]
fn the_teacher_names_a_look_and_a_theme_of_the_history() {
    let dataset = generate(&small()).unwrap();
    for user in &dataset.train {
        let seen: Vec<&str> = dataset
            .history(user)
            .iter()
            .flat_map(|&item| dataset.catalogue.get(item).unwrap().caption.as_deref().unwrap().split(' '))
            .collect();
        let reasoning: Vec<&str> = dataset.reasoning[&user.id].split(' ').collect();
        assert_eq!(reasoning.len(), 2);
        assert!(reasoning.iter().all(|word| seen.contains(word)));
    }
}

#[test]
fn a_history_of_one_look_makes_that_look_the_most_probable() {
    let world = small();
    let dataset = generate(&world).unwrap();
    let oracle = Oracle::new(&world).unwrap();
    let described = |caption: &str| {
        dataset.catalogue.items().iter().find(|item| item.caption.as_deref() == Some(caption)).unwrap().id
    };
    let history = ["crimson ocean", "crimson city", "crimson desert"].map(described);
    let candidates = ["azure forest", "azure desert", "crimson forest", "crimson space"].map(described);
    let best = oracle.best(&history, &candidates);
    assert!(best.ranking[..2].iter().all(|item| candidates[2..].contains(item)), "{best:?}");
    assert!((best.posterior.iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn the_oracle_reaches_its_expected_value() {
    for world in [small(), renewing(), World { new_share: 0.8, popularity_skew: 5.0, ..renewing() }] {
        check_expected_best(&world);
    }
}

fn check_expected_best(world: &World) {
    let task = Task::new(generate(world).unwrap(), &task_options(), 7, Path::new("")).unwrap();
    let oracle = Oracle::new(world).unwrap();
    let users = task.dataset().test.len();
    for metric in [Metric::Hit(1), Metric::Ndcg(3)] {
        let (mut expected, mut reached) = (0.0, 0.0);
        for index in 0..users {
            let case = task.held_out_case(HeldOut::Test, index, 0).unwrap();
            let best = oracle.best(&case.history, &case.candidates);
            expected += best.expected(metric, 3);
            reached += metric.value(rank_of(case.target, &best.ranking[..3]));
        }
        let (expected, reached) = (expected / users as f64, reached / users as f64);
        // Three standard errors of a mean of 1,500 values between 0 and 1.
        assert!((expected - reached).abs() < 0.039, "{metric}: expected {expected}, reached {reached}");
        assert!(expected > 0.4, "{metric}: {expected} leaves nothing to learn");
    }
}

/// Sums the probabilities of all paths, without the recursion of the oracle.
#[test]
fn the_filter_agrees_with_enumerating_all_paths() {
    let world = World { looks: 2, themes: 3, items_per_pair: 2, history: 3, ..World::default() };
    check_filter(&world);
    check_filter(&World { new_items_per_pair: 1, new_share: 0.3, ..world.clone() });
    check_filter(&World { items_per_pair: 4, new_items_per_pair: 2, popularity_skew: 3.0, ..world });
}

fn check_filter(world: &World) {
    let universe = Universe::new(world);
    let oracle = Oracle::new(world).unwrap();
    let items: Vec<ItemId> = (0..world.items() as u64).map(ItemId).collect();
    let history = [items[3], items[8], items[1]];
    let candidates: Vec<ItemId> = items.iter().copied().filter(|item| !history.contains(item)).collect();

    let joint = |target: ItemId| -> f64 {
        let sequence = [history[0], history[1], history[2], target];
        let mut total = 0.0;
        for look in 0..2 {
            for path in 0..3_usize.pow(4) {
                let themes = [path % 3, path / 3 % 3, path / 9 % 3, path / 27];
                let mut left = universe.all_left(Era::HeldOut);
                let mut p = 1.0 / 6.0;
                for (step, (&item, &theme)) in sequence.iter().zip(&themes).enumerate() {
                    if step > 0 {
                        p *= if theme == themes[step - 1] {
                            1.0 - world.p_switch
                        } else {
                            world.p_switch / 2.0
                        };
                    }
                    let cell = universe.cell(item);
                    let state = super::universe::State { look, theme };
                    p *= universe.emission(state, &left)[cell] * universe.share(item, &left);
                    left.take(item, cell);
                }
                total += p;
            }
        }
        total
    };
    let best = oracle.best(&history, &candidates);
    let evidence: f64 = candidates.iter().map(|&item| joint(item)).sum();
    for (&item, &posterior) in best.ranking.iter().zip(&best.posterior) {
        assert!((posterior - joint(item) / evidence).abs() < 1e-12);
    }
}

#[test]
fn an_embedded_folder_is_recognized_by_its_description() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Oracle::open(dir.path()).unwrap().is_none());
    write_data(&small(), dir.path()).unwrap();
    let opened = Oracle::open(dir.path()).unwrap().unwrap();
    let made = Oracle::new(&small()).unwrap();
    let items: Vec<ItemId> = (0..10).map(ItemId).collect();
    assert_eq!(opened.best(&items[..4], &items[4..]), made.best(&items[..4], &items[4..]));
    fs::write(dir.path().join("world.json"), "{}").unwrap();
    assert!(matches!(Oracle::open(dir.path()), Err(Error::Description { .. })));
}

#[test]
fn impossible_worlds_are_rejected_by_field() {
    for (world, named) in [
        (World { looks: 13, ..World::default() }, "looks"),
        (World { themes: 1, ..World::default() }, "themes"),
        (World { items_per_pair: 0, ..World::default() }, "items_per_pair"),
        (World { history: 192, ..World::default() }, "history"),
        (World { p_switch: 1.5, ..World::default() }, "p_switch"),
        (World { p_theme: f64::NAN, ..World::default() }, "p_theme"),
        (World { validation_users: 0, ..World::default() }, "validation_users"),
        (World { test_users: 0, ..World::default() }, "test_users"),
        (World { new_items_per_pair: 4, ..World::default() }, "new_items_per_pair"),
        (World { history: 48, new_items_per_pair: 3, ..World::default() }, "history"),
        (World { new_share: 1.0, ..World::default() }, "new_share"),
        (World { popularity_skew: 0.5, ..World::default() }, "popularity_skew"),
    ] {
        assert!(matches!(world.check(), Err(Error::Field { field, .. }) if field == named), "{named}");
    }
    World::default().check().unwrap();
}

#[test]
fn titles_are_unique() {
    let world = World { looks: 12, themes: 12, items_per_pair: 14, ..World::default() };
    let catalogue = Universe::new(&world).catalogue();
    let mut titles: Vec<&str> = catalogue.items().iter().map(|item| item.title.as_str()).collect();
    titles.sort_unstable();
    titles.dedup();
    assert_eq!(titles.len(), world.items());
}

#[test]
fn old_items_lose_popularity_and_new_items_gain_it() {
    let world = renewing();
    let universe = Universe::new(&world);
    let shares = |era| -> Vec<f64> {
        let left = universe.all_left(era);
        let in_first_cell = |item: &ItemId| universe.cell(*item) == 0;
        let mut shares: Vec<(f64, f64)> = (0..world.items() as u64)
            .map(ItemId)
            .filter(in_first_cell)
            .map(|item| {
                (universe.share(item, &universe.all_left(Era::Training)), universe.share(item, &left))
            })
            .collect();
        shares.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        shares.into_iter().map(|(_, share)| share).collect()
    };
    let close = |found: &[f64], expected: [f64; 4]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    };
    close(&shares(Era::Training), [2.0, 1.0, 0.0, 0.0].map(|weight| weight / 3.0));
    close(&shares(Era::HeldOut), [1.0 / 6.0, 1.0 / 3.0, 0.25, 0.25]);

    let dataset = generate(&World { train_users: 4_000, ..world }).unwrap();
    let is_new = |item: &ItemId| dataset.catalogue.get(*item).unwrap().interactions == 0;
    let untouched = dataset.catalogue.items().iter().filter(|item| is_new(&item.id)).count();
    assert_eq!(untouched, dataset.catalogue.len() / 2);
    let targets = dataset.test.iter().filter(|user| is_new(&user.target())).count();
    let share = targets as f64 / dataset.test.len() as f64;
    // Five standard errors of a fraction of 1,500.
    assert!((share - 0.5).abs() < 0.065, "{share} of the targets are new");
}

/// Purpose of the renewing world: item-kNN cannot rank new items, a ranker that reads captions can.
#[test]
fn captions_rank_new_items_that_interactions_cannot() {
    let world = World { train_users: 4_000, test_users: 600, ..renewing() };
    let task = Task::new(generate(&world).unwrap(), &task_options(), 0, Path::new("")).unwrap();
    let cases: Vec<_> = (0..600).map(|index| task.held_out_case(HeldOut::Test, index, 0).unwrap()).collect();
    let questions: Vec<_> =
        cases.iter().map(|case| Question { history: &case.history, candidates: &case.candidates }).collect();
    let hits = |rankings: &[Vec<ItemId>]| {
        let hit = |(case, ranking): (&Case, &Vec<ItemId>)| ranking[0] == case.target;
        cases.iter().zip(rankings).filter(|&pair| hit(pair)).count() as f64 / 600.0
    };
    let universe = Universe::new(&world);
    let read: Vec<Vec<ItemId>> = cases
        .iter()
        .map(|case| {
            let shown = |item: ItemId| universe.state(universe.cell(item));
            let had = |look| case.history.iter().filter(|&&item| shown(item).look == look).count();
            let look = (0..world.looks).max_by_key(|&look| had(look)).unwrap();
            let theme = shown(case.history[7]).theme;
            let agree = |item: ItemId| {
                f64::from(u8::from(shown(item).look == look) + u8::from(shown(item).theme == theme))
            };
            by_score(&case.candidates, &case.candidates.iter().map(|&item| agree(item)).collect::<Vec<_>>())
        })
        .collect();
    let [popular, near] =
        [Baseline::Popularity, Baseline::ItemKnn].map(|one| hits(&one.rank(task.dataset(), &questions)));
    assert!(popular < 0.12, "popularity reaches {popular}");
    assert!(near < 0.4, "item-kNN reaches {near}");
    assert!(hits(&read) > near + 0.15, "captions reach {}, item-kNN {near}", hits(&read));
}
