use std::path::Path;

use super::*;
use crate::dataset::{Catalogue, HeldOut, User};
use crate::ids::UserId;
use crate::synthetic::{self, World};
use crate::task::Task;

/// Three users with one, two and three items before their target; some items have captions.
fn dataset() -> Dataset {
    let world = World { looks: 2, themes: 2, history: 3, train_users: 6, test_users: 3, ..World::default() };
    let mut dataset = synthetic::generate(&world).unwrap();
    let items = dataset.catalogue.items().iter().cloned().map(|mut item| {
        item.interactions = item.id.0;
        item.caption = item.caption.filter(|_| item.id.0 < 8);
        item
    });
    dataset.catalogue = Catalogue::new(items.collect::<Vec<_>>());
    dataset.train =
        (1..=3).map(|past| User { id: UserId(past), items: (0..=past).map(ItemId).collect() }).collect();
    dataset
}

fn case(candidates: &[u64], target: u64, past: usize) -> Case {
    let items = |ids: &[u64]| ids.iter().copied().map(ItemId).collect::<Vec<_>>();
    let prompt = crate::prompt::Prompt { system: None, user: String::new() };
    let (history, candidates) = (items(&[0]), items(candidates));
    Case {
        user: UserId(1),
        past,
        history,
        candidates,
        target: ItemId(target),
        prompt,
        shortening: crate::prompt::Shortening::default(),
        thinking_start: crate::completion::ThinkingStart::Absent,
    }
}

fn answer(ranking: &[u64], rank: Option<usize>, reward: f64) -> Answer {
    let ranking: Vec<ItemId> = ranking.iter().copied().map(ItemId).collect();
    Answer { form: Form::WellFormed, rank, ranking, reward }
}

fn malformed(form: Form) -> Answer {
    Answer { form, rank: None, ranking: vec![ItemId(5), ItemId(5)], reward: 0.0 }
}

#[test]
fn groups_are_classified() {
    let hit = answer(&[5, 6, 7], Some(1), 1.0);
    let listed = answer(&[6, 5, 7], Some(2), 0.5);
    let miss = answer(&[6, 7, 8], None, 0.1);
    let empty = malformed(Form::Empty);
    let groups = [
        vec![hit.clone(), hit.clone()],
        vec![hit, listed.clone()],
        vec![listed.clone(), listed],
        vec![miss, empty.clone()],
        vec![empty, malformed(Form::RepeatedItem)],
    ];
    let cases = groups.map(|answers| (case(&[5, 6, 7, 8], 5, 1), answers));
    let metrics = Diagnostics::new(&dataset()).metrics(&cases);
    let get = |name: &str| metrics[name];
    for (name, expected) in [
        ("groups/frac_all_hit", 0.2),
        ("groups/frac_all_miss", 0.4),
        ("groups/frac_all_malformed", 0.2),
        ("completions/well_formed", 0.7),
        ("completions/form/empty", 0.2),
        ("completions/form/repeated_item", 0.1),
        ("completions/form/no_list", 0.0),
    ] {
        assert!((get(name) - expected).abs() < 1e-12, "{name} is {}", get(name));
    }
}

#[test]
fn shortcuts_are_visible() {
    // 16 items with 0 to 15 interactions: the popularity of item i is (2 i + 1) / 32.
    let cases = [
        (case(&[9, 4, 7, 2], 7, 1), vec![answer(&[9, 4, 7], Some(3), 0.3), answer(&[7, 4, 9], Some(1), 1.0)]),
        (case(&[3, 1, 2, 8], 8, 2), vec![answer(&[1, 2, 3], None, 0.1), malformed(Form::ShortList)]),
    ];
    let metrics = Diagnostics::new(&dataset()).metrics(&cases);
    for (name, expected) in [
        ("ranking/copied_order", 1.0 / 3.0),
        ("ranking/order_correlation", (1.0 - 1.0 - 1.0 / 3.0) / 3.0),
        ("ranking/first_position", (1.0 + 3.0 + 2.0) / 3.0),
        ("ranking/first_popularity", (19.0 + 15.0 + 3.0) / 96.0),
        ("ranking/target_popularity", (15.0 + 17.0) / 64.0),
    ] {
        assert!((metrics[name] - expected).abs() < 1e-12, "{name} is {}", metrics[name]);
    }
    assert!(!Diagnostics::new(&dataset()).metrics(&[]).contains_key("ranking/copied_order"));
}

#[test]
fn rewards_are_reported_by_kind_of_prompt() {
    let rewarded = |reward| vec![answer(&[5], None, reward)];
    let cases = [
        (case(&[1, 2], 1, 1), rewarded(0.25)),
        (case(&[9, 10], 8, 2), rewarded(0.5)),
        (case(&[12, 13], 15, 9), rewarded(1.0)),
    ];
    let metrics = Diagnostics::new(&dataset()).metrics(&cases);
    let split: Vec<(&str, f64)> = metrics
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("groups/reward/")?, *value)))
        .collect();
    let expected = [
        ("captions/all", 0.25),
        ("captions/some", 0.75),
        ("history/long", 1.0),
        ("history/middle", 0.5),
        ("history/short", 0.25),
        ("target_popularity/head", 1.0),
        ("target_popularity/middle", 0.5),
        ("target_popularity/tail", 0.25),
    ];
    assert_eq!(split, expected);
}

#[test]
fn kinds_without_differences_are_omitted() {
    let world = World { train_users: 50, test_users: 5, ..World::default() };
    let task = Task::new(synthetic::generate(&world).unwrap(), &synthetic::task_options(), 1, Path::new(""))
        .unwrap();
    let case = task.held_out_case(HeldOut::Test, 0, 0).unwrap();
    assert_eq!(case.past, 8);
    let metrics = Diagnostics::new(task.dataset()).metrics(&[(case, vec![malformed(Form::Empty)])]);
    let kinds: Vec<&String> = metrics.keys().filter(|name| name.starts_with("groups/reward/")).collect();
    assert_eq!(kinds.len(), 1, "{kinds:?}: every history has the same length, every item has a caption");
    assert!(kinds[0].starts_with("groups/reward/target_popularity/"));
}
