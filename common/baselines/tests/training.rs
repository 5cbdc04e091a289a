//! Training from a data set to scores: quality on data with structure, repeatable bits, continued trainings, and folders
//! of other trainings.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use podium_baselines::{Error, Model, Options, Progress, train};
use podium_evaluation::trained::{self, Manifest, Trained};
use podium_grpo::rng::Stream;
use podium_recsys::dataset::{HeldOut, Report, TrainingTargets, ValidationSource};
use podium_recsys::ranking::{Metric, by_popularity, rank_of};
use podium_recsys::{Catalogue, Dataset, Item, ItemId, User, UserId};

/// Users of a group take items of their group's block, mostly the next one on a circle.
const GROUPS: u64 = 4;
const BLOCK: u64 = 12;
/// Id of the first item: positions and ids differ.
const FIRST: u64 = 100;

fn dataset(users: u64) -> Dataset {
    let walk = |user: u64, length: usize| {
        let mut stream = Stream::new(5, "test", &[user]);
        let group = user % GROUPS;
        let mut at = stream.below(BLOCK);
        let mut items = Vec::new();
        while items.len() < length {
            let item = ItemId(FIRST + group * BLOCK + at);
            if !items.contains(&item) {
                items.push(item);
            }
            at = if stream.below(5) == 0 { stream.below(BLOCK) } else { (at + 1) % BLOCK };
        }
        User { id: UserId(user), items }
    };
    let length = |user: u64| 5 + (user % 4) as usize;
    // The first users are also held out with a later item; the last are in the test file only.
    let mut test: Vec<User> = (0..users).map(|user| walk(user, length(user) + 1)).collect();
    let train: Vec<User> = test
        .iter()
        .map(|user| User { id: user.id, items: user.items[..user.items.len() - 1].to_vec() })
        .collect();
    test.extend((users..users + users / 4).map(|user| walk(user, length(user))));
    let mut counts: BTreeMap<ItemId, u64> = BTreeMap::new();
    for &item in train.iter().flat_map(|user| &user.items) {
        *counts.entry(item).or_default() += 1;
    }
    let catalogue = Catalogue::new((FIRST..FIRST + GROUPS * BLOCK + 2).map(|id| Item {
        id: ItemId(id),
        title: format!("Title {id}"),
        caption: None,
        interactions: counts.get(&ItemId(id)).copied().unwrap_or(0),
    }));
    Dataset {
        name: "blocks".into(),
        catalogue,
        train,
        validation: Vec::new(),
        validation_source: ValidationSource::Nowhere,
        test,
        reasoning: BTreeMap::new(),
        negatives: BTreeMap::new(),
        min_interactions: 2,
        max_history: 20,
        training_targets: TrainingTargets::Last,
        report: Report::default(),
    }
}

fn options(models: &[Model], epochs: u64) -> Options {
    Options { models: models.into(), seed: 7, threads: 1, epochs: Some(epochs), patience: 4 }
}

fn run(dataset: &Dataset, options: &Options, folder: &Path) -> Manifest {
    train(dataset, options, folder, &mut |_| ControlFlow::Continue(())).unwrap().unwrap()
}

/// Returns the mean NDCG@10 of rankings of all items outside the history, for users that `wanted` selects.
fn ndcg(
    dataset: &Dataset,
    wanted: impl Fn(&User) -> bool,
    rank: impl Fn(&[(usize, &[ItemId])]) -> Vec<Vec<ItemId>>,
) -> f64 {
    let lists: Vec<(usize, Vec<ItemId>)> = dataset
        .test
        .iter()
        .enumerate()
        .filter(|(_, user)| wanted(user))
        .map(|(position, user)| {
            let ids = dataset.catalogue.items().iter().map(|item| item.id);
            let outside = ids.filter(|id| *id == user.target() || !user.items.contains(id));
            (position, outside.collect())
        })
        .collect();
    let lists: Vec<(usize, &[ItemId])> = lists.iter().map(|(user, list)| (*user, list.as_slice())).collect();
    let rankings = rank(&lists);
    let values = lists
        .iter()
        .zip(&rankings)
        .map(|((user, _), ranking)| Metric::Ndcg(10).value(rank_of(dataset.test[*user].target(), ranking)));
    values.sum::<f64>() / lists.len() as f64
}

#[test]
fn every_model_beats_popularity() {
    let dataset = dataset(160);
    let folder = tempfile::tempdir().unwrap();
    let manifest = run(&dataset, &options(&Model::ALL, 60), folder.path());
    let trained = Trained::open(folder.path(), &dataset, HeldOut::Test).unwrap();
    assert_eq!(trained.manifest, manifest);
    assert_eq!(trained.names().collect::<Vec<_>>(), Model::ALL.map(Model::name));
    let known = |user: &User| user.id.0 < 160;
    let new = |user: &User| !known(user);
    for (users, wanted) in [("known", &known as &dyn Fn(&User) -> bool), ("new", &new)] {
        let popularity = ndcg(&dataset, wanted, |lists| {
            lists.iter().map(|(_, list)| by_popularity(list, &dataset.catalogue)).collect()
        });
        for (model, name) in trained.names().enumerate() {
            let own = ndcg(&dataset, wanted, |lists| trained.rank(model, &dataset, lists).unwrap());
            assert!(own > popularity + 0.1, "{name}, {users} users: {own}, popularity {popularity}");
        }
    }
    // A model that reads the order knows the next item.
    let sequential = ndcg(&dataset, |_| true, |lists| trained.rank(0, &dataset, lists).unwrap());
    let linear = ndcg(&dataset, |_| true, |lists| trained.rank(5, &dataset, lists).unwrap());
    assert!(sequential > linear + 0.05, "{sequential}, {linear}");
}

/// Returns the content of all files by relative path.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_seed_has_its_bits_also_after_interruptions() {
    let dataset = dataset(40);
    let options = options(&Model::ALL, 12);
    let [whole, broken, other] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    run(&dataset, &options, whole.path());

    let mut breaks = 0;
    let mut seen: Vec<Progress> = Vec::new();
    while train(&dataset, &options, broken.path(), &mut |progress| {
        seen.push(progress);
        ControlFlow::Break(())
    })
    .unwrap()
    .is_none()
    {
        breaks += 1;
        assert!(breaks < 1_000, "the training does not continue");
    }
    assert!(breaks > 20, "{breaks} interruptions");
    let repeated = seen.windows(2).filter(|pair| pair[0].epoch > 0 && pair[0] == pair[1]).count();
    assert_eq!(repeated, 0, "no validation is repeated");
    let (expected, found) = (files(whole.path()), files(broken.path()));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name} differs after interruptions");
    }
    assert!(!expected.keys().any(|name| name.contains("trial") && name.ends_with("safetensors")));

    run(&dataset, &Options { seed: 8, ..options }, other.path());
    for (name, bytes) in files(other.path()) {
        let same = name.starts_with("ease/") || name.contains(".json");
        assert!(same || expected[&name] != bytes, "{name} does not depend on the seed");
    }
}

#[test]
fn finished_models_are_not_trained_again_and_others_are_added() {
    let dataset = dataset(40);
    let folder = tempfile::tempdir().unwrap();
    run(&dataset, &options(&[Model::Ease], 5), folder.path());
    let mut seen = Vec::new();
    let manifest =
        train(&dataset, &options(&[Model::BprMf, Model::Ease], 5), folder.path(), &mut |progress| {
            seen.push(progress.model);
            ControlFlow::Continue(())
        });
    assert!(seen.iter().all(|model| *model == Model::BprMf) && !seen.is_empty());
    let names: Vec<String> = manifest.unwrap().unwrap().models.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["BPR-MF", "EASE"]);
}

#[test]
fn other_inputs_and_stale_or_damaged_scores_are_refused() {
    let dataset = dataset(40);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ease = options(&[Model::Ease], 5);
    run(&dataset, &ease, folder);
    let again = |dataset: &Dataset, options: &Options| {
        train(dataset, options, folder, &mut |_| ControlFlow::Continue(())).unwrap_err()
    };
    let error = again(&dataset, &Options { seed: 8, ..ease.clone() });
    assert!(matches!(&error, Error::OtherTraining { field, .. } if field == "seed"), "{error}");
    let error = again(&dataset, &Options { models: Vec::new(), ..ease.clone() });
    assert!(matches!(error, Error::NoModels));

    let mut changed = dataset.clone();
    changed.test[0].items.swap(0, 1);
    let error = again(&changed, &ease);
    assert!(matches!(&error, Error::OtherTraining { field, .. } if field == "interactions"), "{error}");
    let error = Trained::open(folder, &changed, HeldOut::Test).unwrap_err();
    assert!(matches!(error, trained::Error::OtherData { .. }), "{error}");

    Trained::open(folder, &dataset, HeldOut::Test).unwrap();
    let scores = folder.join("ease/test.safetensors");
    let mut bytes = fs::read(&scores).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&scores, bytes).unwrap();
    let error = Trained::open(folder, &dataset, HeldOut::Test).unwrap_err();
    assert!(matches!(error, trained::Error::Changed { .. }), "{error}");
    fs::remove_file(&scores).unwrap();
    assert!(
        Trained::open(folder, &dataset, HeldOut::Test).unwrap_err().to_string().contains("test.safetensors")
    );
    fs::write(folder.join(trained::MANIFEST), "{}").unwrap();
    let error = Trained::open(folder, &dataset, HeldOut::Test).unwrap_err();
    assert!(matches!(error, trained::Error::Manifest { .. }), "{error}");

    let mut short = dataset.clone();
    short.train.iter_mut().for_each(|user| user.items.truncate(2));
    let other = tempfile::tempdir().unwrap();
    let error = train(&short, &ease, other.path(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::Unusable { .. }), "{error}");
}
