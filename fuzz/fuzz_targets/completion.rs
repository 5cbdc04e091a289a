//! Completions: any text of any length is parsed, graded and credited by the rules of docs/guides/rewards.md.
//!
//! Three bits of the first byte select the expected format of answers, the others the number of repetitions of the
//! text.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use podium_recsys::completion::{Layout, ListedStatus, Parsed, ThinkingStart};
use podium_recsys::reward::{Extremes, ItemCredit, Name, Term};
use podium_recsys::synthetic::{self, World};
use podium_recsys::task::{Case, Task};

/// Maximum length of a completion.
const LONGEST: usize = 100_000;

/// Tasks by layout, by required reasoning, and by the rewards of items.
static TASKS: LazyLock<Vec<(Task, Case, Extremes)>> = LazyLock::new(|| (0..8).map(task).collect());

fn task(kind: u8) -> (Task, Case, Extremes) {
    let world = World { train_users: 4, validation_users: 4, test_users: 4, ..World::default() };
    let mut options = synthetic::task_options();
    options.answer.layout = if kind & 1 == 0 { Layout::Ids } else { Layout::Titled };
    options.answer.require_thinking = kind & 2 == 0;
    if kind & 4 != 0 {
        options.reward.rank_credit = ItemCredit::CounterfactualSwap;
        options.reward.terms.extend([
            Term { limit: Some(200), weight: 0.1, ..Term::new(Name::Length) },
            Term { negatives: Some(3), weight: 0.1, ..Term::new(Name::RankPenalty) },
            Term { weight: 0.2, ..Term::new(Name::CounterfactualSwap) },
            Term { weight: 0.1, ..Term::new(Name::FormIfImproved) },
        ]);
    }
    let dataset = synthetic::generate(&world).expect("the world is valid");
    let task = Task::new(dataset, &options, 1, Path::new("")).expect("the options are consistent");
    let case = task.training_case(0, 0).expect("there is a user");
    let extremes = task.rewards().extremes();
    (task, case, extremes)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, text)) = bytes.split_first() else { return };
    let (task, case, extremes) = &TASKS[usize::from(first & 7)];
    let text = String::from_utf8_lossy(text);
    let times = (1 << (first >> 4)).min(LONGEST / text.len().max(1)).max(1);
    let text = text.repeat(times);
    for start in ["", "<think>\n", "<think>\n\n</think>\n\n"] {
        let case = Case { thinking_start: ThinkingStart::of(start), ..case.clone() };
        check(task, &case, extremes, &text, &task.parse(&case, &text));
    }
});

fn check(task: &Task, case: &Case, extremes: &Extremes, text: &str, parsed: &Parsed<'_>) {
    let mut end = 0;
    for listed in &parsed.ranking {
        assert!(listed.span.start >= end);
        assert!(text[listed.span.clone()].starts_with("[ITEM_"));
        end = listed.span.end;
    }
    let grade = task.grade(case, text);
    assert_eq!(grade.outcome.form, parsed.form);
    let total = grade.score.total;
    assert!(total <= extremes.best.1 + 1e-9 && total >= extremes.worst.1 - 1e-9);
    let items = &grade.item_rewards;
    assert!(items.iter().map(|item| &item.span).eq(parsed.ranking.iter().map(|listed| &listed.span)));
    assert!(items.iter().all(|item| item.reward.is_finite()));
    if parsed.form.is_well_formed() {
        assert_eq!(parsed.ranking.len(), task.answer().list_length);
        assert!(parsed.ranking.iter().all(|listed| listed.status == ListedStatus::Candidate));
        assert!(total >= extremes.worst_well_formed.1 - 1e-9);
        if task.answer().layout == Layout::Ids {
            // The answer consists of its items and white space.
            let answer = text.rsplit("</think>").next().unwrap_or_default();
            let items: String = parsed.ranking.iter().map(|listed| listed.item.to_string()).collect();
            assert_eq!(answer.split_whitespace().collect::<String>(), items);
        }
    } else {
        assert!(total < extremes.worst_well_formed.1);
        assert!(items.iter().all(|item| item.reward <= 0.0));
    }
}
