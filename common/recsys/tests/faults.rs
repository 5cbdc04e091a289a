//! Faults of the method's released code and the tests that exclude them here.
//!
//! | fault | tested in |
//! |---|---|
//! | 1 the reward reads the text before `</think>` | here |
//! | 2 a well-formed invented id earns a reward | here |
//! | 3 training requests one item, evaluation several | here |
//! | 4 the chat template is missing in one of the stages | tests: stage_prompts |
//! | 5 the answer leaks into the prompt with the reasoning | here; the curator's requests: its own tests |
//! | 6 reasoning is keyed by a line number | here |
//! | 7 samples without a seed, negatives that are positives, frozen or identifiable by popularity | here |
//! | 8 captions are never used | here |
//! | 9 the loss of fine-tuning is on the prompt, long samples are truncated before their answer | tests: stage_prompts; learner: sft |
//! | 10 metrics that are always 1, tables that overwrite each other, no rule for ties, no intervals, one candidate sample | here; curator: baselines |
//! | 11 failed calls are stored as empty reasoning | here for the reader; the curator's store: its own tests |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use podium_recsys::candidates::Negatives;
use podium_recsys::completion::Form;
use podium_recsys::dataset::{self, Dataset, Error, HeldOut, Problem, RowPolicy, Split, Validation};
use podium_recsys::demonstration::{self, demonstrate};
use podium_recsys::prompt;
use podium_recsys::ranking::{Draws, Metric, by_popularity, by_score};
use podium_recsys::task::{Options, Task};
use podium_recsys::{ItemId, UserId};

const ITEMS: u64 = 60;
/// Occurs only in reasoning of training users.
const TRAINING_MARK: &str = "zebrafish";
/// Occurs only in reasoning of held-out users.
const HELD_OUT_MARK: &str = "quokka";

/// Users 1 to 40 are training users and user 41 is a test user; there is no validation part. Low items are the popular ones.
fn folder(reasoning: &str, test: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let (mut titles, mut captions, mut train) = ("item,title\n".to_owned(), "{".to_owned(), String::new());
    for item in 0..ITEMS {
        writeln!(titles, "{item},Title {item}").unwrap();
        let separator = if item == 0 { "" } else { "," };
        write!(captions, "{separator}\"{item}\": {{\"caption\": \"caption-of-{item}\"}}").unwrap();
    }
    for user in 1..=40_u64 {
        let items: Vec<String> =
            (0..12).map(|at| ((user * at + at * at) % (ITEMS / 2)).to_string()).collect();
        writeln!(train, "{user}\t{}", items.join(" ")).unwrap();
    }
    write("d_titles.csv", &titles);
    write("d_captions.json", &(captions + "}"));
    write("d_deepseek_cot.json", reasoning);
    write("train.tsv", &train);
    write("test.tsv", test);
    folder
}

const TEST: &str = "41\t0 3 6 9 12 15 18 21 24 27 30\n";

fn load(folder: &tempfile::TempDir, split: Split) -> Result<Dataset, Error> {
    let options = dataset::Options {
        name: Some("d".to_owned()),
        split,
        validation: Validation::None,
        ..dataset::Options::default()
    };
    Dataset::load(folder.path(), &options)
}

fn reasoning() -> String {
    let rows: Vec<String> = (1..=40)
        .map(|user| {
            format!(r#"{{"line_idx": 0, "user_id": {user}, "reasoning": "{TRAINING_MARK} of {user}"}}"#)
        })
        .chain([format!(
            r#"{{"line_idx": 3, "user_id": 41, "reasoning": "{HELD_OUT_MARK}: it is item 30"}}"#
        )])
        .collect();
    format!("[{}]", rows.join(","))
}

fn task_with(change: impl FnOnce(&mut Options)) -> Task {
    let mut options = Options::default();
    change(&mut options);
    let dataset = load(&folder(&reasoning(), TEST), Split::Users).unwrap();
    Task::new(dataset, &options, 7, Path::new("")).unwrap()
}

fn task() -> Task {
    task_with(|_| {})
}

/// A completion with reasoning and a list.
fn answer(items: &[ItemId]) -> String {
    let list: Vec<String> = items.iter().map(|item| format!("{item} Title {}", item.0)).collect();
    format!("<think>They like what they like.</think>\n{}", list.join("\n"))
}

#[test]
fn fault_01_the_answer_follows_the_reasoning() {
    let task = task();
    let case = task.held_out_case(HeldOut::Test, 0, 0).unwrap();
    let others: Vec<ItemId> = case.candidates.iter().copied().filter(|&item| item != case.target).collect();
    let right = task.grade(&case, &answer(&[case.target, others[0], others[1]]));
    assert_eq!((right.outcome.form, right.outcome.scored_rank()), (Form::WellFormed, Some(1)));
    // The target in the reasoning earns no more than a miss.
    let missed = answer(&others[..3]).replace("They like", &format!("{} Title. They like", case.target));
    assert_eq!(task.grade(&case, &missed).outcome.scored_rank(), None);
    assert!(task.grade(&case, &missed).score.total < right.score.total);
}

#[test]
fn fault_02_an_invented_item_earns_less_than_any_candidate() {
    let task = task();
    let case = task.held_out_case(HeldOut::Test, 0, 0).unwrap();
    let others: Vec<ItemId> = case.candidates.iter().copied().filter(|&item| item != case.target).collect();
    let worst_offered = task.grade(&case, &answer(&others[..3])).score.total;
    let elsewhere = (0..ITEMS).map(ItemId).find(|item| !case.candidates.contains(item)).unwrap();
    for (item, form) in [(ItemId(9_999), Form::InventedItem), (elsewhere, Form::NotACandidate)] {
        for list in [[case.target, item, others[0]], [item, case.target, others[0]]] {
            let grade = task.grade(&case, &answer(&list));
            assert_eq!(grade.outcome.form, form);
            assert_eq!(grade.outcome.scored_rank(), None);
            assert!(grade.score.total < worst_offered, "{form}: {} and {worst_offered}", grade.score.total);
        }
    }
}

#[test]
fn fault_03_training_and_evaluation_use_the_same_task() {
    let task = task();
    let instruction = |text: &str| text.rsplit_once("\n\n").unwrap().1.to_owned();
    let (training, held_out) =
        (task.training_case(0, 0).unwrap(), task.held_out_case(HeldOut::Test, 0, 0).unwrap());
    assert_eq!(instruction(&training.prompt.user), instruction(&held_out.prompt.user));
    assert_eq!(training.candidates.len(), held_out.candidates.len());
}

#[test]
fn fault_05_reasoning_is_never_in_a_prompt_or_read_for_held_out_users() {
    let task = task();
    for case in
        (0..40).map(|user| task.training_case(user, 0)).chain([task.held_out_case(HeldOut::Test, 0, 0)])
    {
        let prompt = case.unwrap().prompt;
        assert!(
            prompt.messages().all(|(_, text)| !text.contains(TRAINING_MARK) && !text.contains(HELD_OUT_MARK))
        );
    }
    assert!(task.dataset().reasoning.values().all(|text| !text.contains(HELD_OUT_MARK)));
    assert_eq!(task.dataset().report.reasoning_not_of_training_users, 1);
    // Templates cannot access reasoning or target.
    for secret in ["reasoning", "target", "user"] {
        let templates = tempfile::tempdir().unwrap();
        fs::write(templates.path().join("asks.jinja"), format!("{{{{ {secret} }}}}")).unwrap();
        let prompt = prompt::Options { template: "asks.jinja".to_owned(), ..prompt::Options::default() };
        let options = Options { prompt, ..Options::default() };
        let dataset = load(&folder(&reasoning(), TEST), Split::Users).unwrap();
        let task = Task::new(dataset, &options, 7, templates.path()).unwrap();
        assert!(task.training_case(0, 0).is_err(), "{secret}");
    }
}

#[test]
fn fault_05_reasoning_is_part_of_the_completion() {
    let task = task();
    let options = demonstration::Options::default();
    let shown = demonstrate(&task, &options, 0, 0).unwrap().unwrap();
    assert!(shown.completion.contains(TRAINING_MARK));
    assert!(!shown.prompt.user.contains(TRAINING_MARK));
}

#[test]
fn fault_06_reasoning_is_matched_by_user_not_by_line() {
    // Every row has line_idx 0, and a skipped short user shifts all following lines.
    let folder = folder(&reasoning(), TEST);
    let train = fs::read_to_string(folder.path().join("train.tsv")).unwrap();
    fs::write(folder.path().join("train.tsv"), format!("90\t1 2\n{train}")).unwrap();
    let dataset = load(&folder, Split::Users).unwrap();
    assert_eq!(dataset.train.len(), 40);
    for user in &dataset.train {
        assert_eq!(dataset.reasoning[&user.id], format!("{TRAINING_MARK} of {}", user.id.0));
    }
}

#[test]
fn fault_07_users_with_reasoning_depend_only_on_the_seed() {
    let options = demonstration::Options { reasoning_share: 0.5, ..demonstration::Options::default() };
    let shown = |seed: u64| -> Vec<bool> {
        let mut task = Options::default();
        task.answer.require_thinking = false;
        let dataset = load(&folder(&reasoning(), TEST), Split::Users).unwrap();
        let task = Task::new(dataset, &task, seed, Path::new("")).unwrap();
        let demonstration = |user| demonstrate(&task, &options, user, 0).unwrap().unwrap();
        (0..40).map(|user| demonstration(user).completion.contains(TRAINING_MARK)).collect()
    };
    assert_eq!(shown(1), shown(1));
    assert_ne!(shown(1), shown(2));
}

#[test]
fn fault_07_negatives_are_resampled_outside_the_whole_history_of_their_part() {
    // Leave-one-out: user 1 is in all parts; item 58 is the validation target, item 59 the test target.
    let train = fs::read_to_string(folder("[]", TEST).path().join("train.tsv")).unwrap();
    let row = train.lines().next().unwrap();
    let task = |test_target: u64| {
        let folder = folder("[]", &format!("{row} 58 {test_target}\n"));
        fs::write(folder.path().join("validation.tsv"), format!("{row} 58\n")).unwrap();
        let options = dataset::Options {
            name: Some("d".to_owned()),
            split: Split::Times,
            validation: Validation::File,
            ..dataset::Options::default()
        };
        let dataset = Dataset::load(folder.path(), &options).unwrap();
        assert!(dataset.train[0].items.len() > dataset.min_interactions, "more than a prompt shows");
        let mut options = Options::default();
        options.candidates.count = 31;
        Task::new(dataset, &options, 7, Path::new("")).unwrap()
    };
    let (one, other) = (task(59), task(57));
    let mut lists = BTreeSet::new();
    let mut held_out_negatives = 0;
    for epoch in 0..30 {
        let case = one.training_case(0, epoch).unwrap();
        assert_eq!(case.user, UserId(1));
        let trained = &one.dataset().train[0].items;
        let known = case.candidates.iter().filter(|item| trained.contains(item));
        assert!(known.eq([&case.target]), "a true positive among the negatives of epoch {epoch}");
        held_out_negatives += case.candidates.iter().filter(|item| item.0 >= 58).count();
        // Neither training nor validation depends on a test target.
        assert_eq!(case, other.training_case(0, epoch).unwrap());
        let validation = one.held_out_case(HeldOut::Validation, 0, epoch).unwrap();
        assert_eq!(validation, other.held_out_case(HeldOut::Validation, 0, epoch).unwrap());
        assert_eq!((validation.target, validation.history.last()), (ItemId(58), trained.last()));
        let test = one.held_out_case(HeldOut::Test, 0, epoch).unwrap();
        assert_eq!((test.target, test.history.last()), (ItemId(59), Some(&ItemId(58))));
        for (case, part) in [(&validation, HeldOut::Validation), (&test, HeldOut::Test)] {
            let whole = &one.dataset().held_out(part)[0].items;
            assert!(case.candidates.iter().filter(|item| whole.contains(item)).eq([&case.target]), "{part}");
        }
        lists.insert(case.candidates);
    }
    assert!(held_out_negatives > 0, "lists of training avoid, and thereby reveal, held-out targets");
    assert_eq!(lists.len(), 30, "every epoch has its own candidates");
}

#[test]
fn fault_07_popularity_need_not_identify_the_target() {
    let hits = |negatives| {
        let task = task_with(|options| options.candidates.negatives = negatives);
        let catalogue = &task.dataset().catalogue;
        (0..40)
            .flat_map(|user| (0..25).map(move |epoch| (user, epoch)))
            .filter(|&(user, epoch)| {
                let case = task.training_case(user, epoch).unwrap();
                by_popularity(&case.candidates, catalogue)[0] == case.target
            })
            .count()
    };
    let (uniform, popularity) = (hits(Negatives::Uniform), hits(Negatives::Popularity));
    assert!(
        popularity * 4 < uniform * 3,
        "of 1000: {uniform} with uniform negatives, {popularity} with popular ones"
    );
}

#[test]
fn fault_08_prompts_include_captions_of_history_and_candidates() {
    let task = task();
    for case in [task.training_case(3, 0).unwrap(), task.held_out_case(HeldOut::Test, 0, 0).unwrap()] {
        for item in case.history.iter().chain(&case.candidates) {
            assert!(case.prompt.user.contains(&format!("caption-of-{}", item.0)), "{item}");
        }
    }
}

#[test]
fn fault_10_metrics_are_informative_and_have_intervals() {
    assert!(!Metric::at(&[1, 3, 5, 10], 10).contains(&Metric::Hit(10)), "HR@10 of 10 is always 1");
    assert!(Metric::at(&[1, 3, 5, 10], 100).contains(&Metric::Hit(10)));

    // Several candidate samples, the same in every run.
    let (one, other) = (task(), task_with(|options| options.candidates.count = 10));
    let draws: BTreeSet<Vec<ItemId>> =
        (0..5).map(|draw| one.held_out_case(HeldOut::Test, 0, draw).unwrap().candidates).collect();
    assert_eq!(draws.len(), 5);
    assert_eq!(
        one.held_out_case(HeldOut::Test, 0, 2).unwrap(),
        other.held_out_case(HeldOut::Test, 0, 2).unwrap()
    );

    // Ties keep the order of the list, which is random, so a constant ranker is the random one.
    let mut counts = [0; 10];
    for draw in 0..2_000 {
        let case = one.held_out_case(HeldOut::Test, 0, draw).unwrap();
        let ranking = by_score(&case.candidates, &[0.0; 10]);
        assert_eq!(ranking, case.candidates);
        counts[ranking.iter().position(|&item| item == case.target).unwrap()] += 1;
    }
    assert!(counts.iter().all(|&count| (140..=260).contains(&count)), "{counts:?}");

    let draws = Draws::new(10, vec![vec![Some(1), Some(4), None], vec![Some(2), Some(1), Some(9)]]);
    let estimate = draws.estimates(&[Metric::Ndcg(3)], 0)[0];
    assert!(estimate.low < estimate.mean && estimate.mean < estimate.high, "{estimate:?}");
}

#[test]
fn fault_11_an_empty_reasoning_is_a_bad_row() {
    let folder = folder(r#"[{"user_id": 1, "reasoning": ""}]"#, TEST);
    assert!(matches!(
        load(&folder, Split::Users),
        Err(Error::Row { problem: Problem::NoText("reasoning"), .. })
    ));
    let options = dataset::Options {
        name: Some("d".to_owned()),
        bad_rows: RowPolicy::Skip,
        ..dataset::Options::default()
    };
    let dataset = Dataset::load(folder.path(), &options).unwrap();
    assert!(dataset.reasoning.is_empty());
    assert_eq!(dataset.report.skipped["d_deepseek_cot.json: no_text"].count, 1);
}
