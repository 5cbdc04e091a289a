//! The complete path from a user to a reward.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use podium_recsys::completion::{Form, Layout};
use podium_recsys::dataset::{HeldOut, TrainingTargets};
use podium_recsys::demonstration::{self, Ranking, demonstrate};
use podium_recsys::synthetic::{self, World};
use podium_recsys::task::{Error, Options, Task};
use proptest::prelude::*;

fn task(seed: u64, change: impl FnOnce(&mut Options)) -> Task {
    let world = World { train_users: 50, validation_users: 50, test_users: 50, ..World::default() };
    let mut options = synthetic::task_options();
    change(&mut options);
    Task::new(synthetic::generate(&world).unwrap(), &options, seed, Path::new("")).unwrap()
}

#[test]
fn a_prompt_shows_history_and_candidates_without_the_target() {
    let task = task(3, |_| {});
    let case = task.training_case(7, 0).unwrap();
    assert_eq!((case.history.len(), case.candidates.len()), (8, 10));
    assert!(case.prompt.user.starts_with(&format!("history {} ", case.history[0])));
    for item in &case.candidates {
        assert_eq!(case.prompt.user.matches(&item.to_string()).count(), 1);
    }
    assert!(!case.history.contains(&case.target));
}

#[test]
fn the_prompt_of_the_whole_catalogue_has_the_history_alone() {
    let task = task(3, |_| {});
    let (case, listed) =
        (task.catalogue_case(HeldOut::Test, 7).unwrap(), task.held_out_case(HeldOut::Test, 7, 0).unwrap());
    assert_eq!((case.user, case.target, &case.history), (listed.user, listed.target, &listed.history));
    assert!(case.candidates.is_empty() && !case.prompt.user.contains("candidates"), "{}", case.prompt.user);
    assert!(listed.prompt.user.starts_with(&case.prompt.user), "{}", case.prompt.user);
    assert!(matches!(task.catalogue_case(HeldOut::Test, 50), Err(Error::NoSuchCase { .. })));
}

#[test]
fn training_depends_on_seed_and_epoch_and_evaluation_is_fixed() {
    let (one, other) = (task(3, |_| {}), task(4, |_| {}));
    assert_eq!(one.training_case(7, 0).unwrap(), one.training_case(7, 0).unwrap());
    assert_ne!(one.training_case(7, 0).unwrap(), one.training_case(7, 1).unwrap());
    assert_ne!(one.training_case(7, 0).unwrap(), other.training_case(7, 0).unwrap());
    assert_eq!(
        one.held_out_case(HeldOut::Test, 7, 0).unwrap(),
        other.held_out_case(HeldOut::Test, 7, 0).unwrap()
    );
    assert_ne!(one.training_order(0), one.training_order(1));
    let mut order = one.training_order(0);
    order.sort_unstable();
    assert_eq!(order, (0..50).collect::<Vec<_>>());
    assert!(matches!(one.training_case(50, 0), Err(Error::NoSuchCase { index: 50, count: 50, .. })));
}

#[test]
fn reasoning_and_the_target_at_rank_one_earn_the_most() {
    let task = task(3, |_| {});
    let case = task.held_out_case(HeldOut::Test, 0, 0).unwrap();
    let others: Vec<String> =
        case.candidates.iter().filter(|&&item| item != case.target).map(ToString::to_string).collect();
    let right = format!("<think> crimson desert </think> {} {} {}", case.target, others[0], others[1]);
    let grade = task.grade(&case, &right);
    assert_eq!(grade.outcome.scored_rank(), Some(1));
    assert!((grade.score.total - task.rewards().extremes().best.1).abs() < 1e-12);

    let second = format!("<think> crimson desert </think> {} {} {}", others[0], case.target, others[1]);
    assert!(task.grade(&case, &second).score.total < grade.score.total);
    let thoughtless = task.grade(&case, &format!("{} {} {}", case.target, others[0], others[1]));
    assert_eq!(thoughtless.outcome.form, Form::NoThinking);
    assert_eq!(thoughtless.outcome.target_rank, Some(1));
    assert_eq!(thoughtless.outcome.scored_rank(), None);
    assert!(thoughtless.score.total.abs() < 1e-12);
}

#[test]
fn demonstrations_are_well_formed_completions() {
    for template in ["compact", "words"] {
        let task = task(3, |options| {
            if template == "words" {
                *options = Options::default();
            }
        });
        for ranking in [Ranking::TargetFirst, Ranking::ByReasoning] {
            let options = demonstration::Options { reasoning_share: 1.0, ranking };
            for index in 0..50 {
                let shown = demonstrate(&task, &options, index, 2).unwrap().unwrap();
                let case = task.training_case(index, 2).unwrap();
                assert_eq!(shown.prompt, case.prompt);
                let grade = task.grade(&case, &shown.completion);
                assert_eq!(grade.outcome.form, Form::WellFormed, "{}", shown.completion);
                if ranking == Ranking::TargetFirst {
                    assert_eq!(grade.outcome.target_rank, Some(1));
                }
            }
        }
    }
}

#[test]
fn only_the_configured_fraction_has_reasoning() {
    let options = demonstration::Options { reasoning_share: 0.3, ..demonstration::Options::default() };
    let strict = task(3, |_| {});
    let shown = (0..50).filter(|&index| demonstrate(&strict, &options, index, 0).unwrap().is_some()).count();
    assert!((5..=25).contains(&shown), "{shown}");

    let lenient = task(3, |options| options.answer.require_thinking = false);
    let completions: Vec<String> =
        (0..50).map(|index| demonstrate(&lenient, &options, index, 0).unwrap().unwrap().completion).collect();
    assert_eq!(completions.iter().filter(|completion| completion.contains("<think>")).count(), shown);
}

#[test]
fn a_task_can_be_shared_between_threads() {
    fn shared(_: &(impl Send + Sync)) {}
    shared(&task(3, |_| {}));
}

#[test]
fn a_list_longer_than_the_candidates_is_rejected() {
    let dataset = synthetic::generate(&World { train_users: 1, test_users: 1, ..World::default() }).unwrap();
    let mut options = synthetic::task_options();
    options.answer.list_length = 11;
    assert!(matches!(
        Task::new(dataset, &options, 0, Path::new("")),
        Err(Error::ListLength { list_length: 11, candidates: 10 })
    ));
}

/// Pieces of malformed completions: halves of tags and items, digits of other scripts, invisible and control
/// characters, and existing items.
fn pieces() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "<think>",
        "</think>",
        "<thin",
        "</think",
        "<THINK>",
        "[ITEM_",
        "[item_1]",
        "]",
        "[ITEM_٤]",
        "[ITEM_４]",
        "[ITEM_+4]",
        "[ITEM_007]",
        "[ITEM_18446744073709551616]",
        "\0",
        "\r\n",
        "\n",
        " ",
        "\u{A0}",
        "\u{2028}",
        "\u{200B}",
        "\u{200D}",
        "\u{200F}",
        "\u{202E}",
        "\u{FEFF}",
        "\u{FFFD}",
        "e\u{301}",
        "😀",
    ]);
    prop_oneof![
        odd.prop_map(str::to_owned),
        (0_u64..60).prop_map(|id| format!("[ITEM_{id}] ")),
        Just("<think>so</think>".to_owned()),
        ".{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_completion_is_graded(
        pieces in prop::collection::vec(pieces(), 0..16),
        times in prop::sample::select(vec![1_usize, 1, 1, 2, 300]),
        titled: bool,
    ) {
        let layout = if titled { Layout::Titled } else { Layout::Ids };
        let task = task(3, |options| options.answer.layout = layout);
        let case = task.training_case(0, 0).unwrap();
        let text = pieces.concat().repeat(times);
        let grade = task.grade(&case, &text);
        let extremes = task.rewards().extremes();
        let items = &grade.item_rewards;
        prop_assert_eq!(items.len(), grade.outcome.listed);
        prop_assert!(items.windows(2).all(|pair| pair[0].span.end <= pair[1].span.start));
        prop_assert!(items.iter().all(|item| text[item.span.clone()].starts_with("[ITEM_")));
        if grade.outcome.form.is_well_formed() {
            prop_assert_eq!(grade.outcome.listed, 3);
            prop_assert!(grade.score.total >= extremes.worst_well_formed.1);
        } else {
            prop_assert!(grade.score.total < extremes.worst_well_formed.1);
            prop_assert!(items.iter().all(|item| item.reward <= 0.0));
        }
    }
}

#[test]
fn the_longest_completions_are_parsed_in_one_pass() {
    let task = task(3, |_| {});
    let case = task.training_case(0, 0).unwrap();
    let item = case.target.to_string();
    for piece in [
        "[ITEM_", "[ITEM_1", "1", "<think>", "</think>", "</think", &item, "\0", "\r\n", "\u{200F}", "٤",
        "é ",
    ] {
        for before in ["", "<think>a</think>", "<think>a</think>[ITEM_"] {
            let text = format!("{before}{}", piece.repeat(100_000 / piece.chars().count()));
            let grade = task.grade(&case, &text);
            assert!(!grade.outcome.form.is_well_formed(), "{before}{piece}…");
            assert_eq!(grade.item_rewards.len(), grade.outcome.listed);
        }
    }
}

#[test]
fn every_item_of_a_training_user_can_be_a_target() {
    let world = World { train_users: 12, test_users: 3, ..World::default() };
    let mut dataset = synthetic::generate(&world).unwrap();
    dataset.training_targets = TrainingTargets::Every;
    dataset.max_history = 3;
    let users = dataset.train.clone();
    let reasoned = dataset.reasoning.len();
    let task = Task::new(dataset, &synthetic::task_options(), 5, Path::new("")).unwrap();
    assert_eq!(task.training_cases(), users.iter().map(|user| user.items.len() - 1).sum::<usize>());

    let mut order = task.training_order(1);
    order.sort_unstable();
    assert!(order.into_iter().eq(0..task.training_cases()));
    let (mut index, mut shown, mut lists) = (0, 0, BTreeSet::new());
    for user in &users {
        for position in 1..user.items.len() {
            let case = task.training_case(index, 0).unwrap();
            assert_eq!((case.user, case.target, case.past), (user.id, user.items[position], position));
            assert_eq!(case.history, user.items[position.saturating_sub(3)..position]);
            let known = case.candidates.iter().filter(|item| user.items.contains(item));
            assert!(known.eq([&case.target]), "later items of a history are not negatives either");
            shown += usize::from(task.reasoning(index).unwrap().is_some());
            lists.insert(case.candidates);
            index += 1;
        }
    }
    assert_eq!(lists.len(), index, "every case has its own candidates");
    assert_eq!(shown, reasoned, "reasoning is about the last target");

    // Held-out users have only their last item as a target, and the candidates of a last target are unchanged.
    let last = self::task(5, |_| {});
    let held_out = task.held_out_case(HeldOut::Test, 1, 0).unwrap();
    assert_eq!(held_out.target, task.dataset().test[1].target());
    let (one, other) =
        (task.training_case(users[0].items.len() - 2, 4).unwrap(), last.training_case(0, 4).unwrap());
    assert_eq!((one.user, one.candidates), (other.user, other.candidates));
}
