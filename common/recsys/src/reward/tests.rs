use proptest::prelude::*;

use super::*;
use crate::completion::{self, Expected, Form, Layout, ThinkingStart, parse};
use crate::dataset::{Catalogue, Item};
use crate::ids::ItemId;

const LISTED: usize = 3;
const CANDIDATES: usize = 10;

fn answer() -> completion::Options {
    completion::Options { list_length: LISTED, layout: Layout::Titled, require_thinking: true }
}

fn rewards(terms: Vec<Term>) -> Result<Rewards, Error> {
    Rewards::new(&Options { terms, ..Options::default() }, &answer(), CANDIDATES)
}

fn unchecked(terms: Vec<Term>) -> Rewards {
    let options = Options { terms, check: Check::Warn, ..Options::default() };
    Rewards::new(&options, &answer(), CANDIDATES).unwrap()
}

fn term(name: Name, k: Option<usize>, weight: f64) -> Term {
    Term { k, weight, ..Term::new(name) }
}

fn form() -> Term {
    term(Name::Form, None, 0.1)
}

fn hit() -> Term {
    term(Name::Hit, Some(1), 1.0)
}

fn outcome(form: Form, target_rank: Option<usize>) -> Outcome {
    Outcome {
        form,
        target_rank,
        listed: LISTED,
        titles: 1.0,
        characters: 0,
        hard_negatives: 0.0,
        external: Vec::new(),
        setting: Setting { given_rank: 5, popularity: 0.0 },
    }
}

fn refused(terms: Vec<Term>) -> Violation {
    match rewards(terms) {
        Err(Error::Order(violation)) => *violation,
        other => panic!("{other:?}"),
    }
}

fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
}

fn external(name: &str, weight: f64) -> External {
    let program = serde_json::json!({
        "name": name, "weight": weight, "min": -1.0, "max": 1.0, "url": "http://localhost/reward",
    });
    serde_json::from_value(program).unwrap()
}

#[test]
fn the_range_of_external_terms_is_part_of_the_check() {
    let with = |terms: &[External]| {
        let options = Options { external: terms.to_vec(), ..Options::default() };
        Rewards::new(&options, &answer(), CANDIDATES)
    };
    let rewards = with(&[external("judge", 0.2), external("tone", 0.1)]).unwrap();
    assert_eq!(rewards.names()[3..], ["judge", "tone"]);
    let Extremes { best, worst, worst_well_formed } = rewards.extremes();
    assert_close(best.1, 1.1 + 0.3);
    assert_close(worst_well_formed.1, 0.1 - 0.3);
    assert_close(worst.1, -0.3);
    let outcome = |form, values: &[f64]| Outcome { external: values.to_vec(), ..outcome(form, Some(1)) };
    let score = rewards.score(&outcome(Form::WellFormed, &[0.5, -0.5]));
    assert_close(score.total, 1.1 + 0.2 * 0.5 - 0.1 * 0.5);
    assert_eq!(score.parts[3..], [0.5, -0.5]);
    assert_eq!(rewards.score(&outcome(Form::InventedItem, &[0.5, -0.5])).parts[3..], [-1.0, -1.0]);
    assert_eq!(rewards.score(&outcome(Form::WellFormed, &[])).parts.len(), 3);
    // The gap between the first and the second rank is 0.5 + 0.5 · (1 − 1 / log₂ 3) = 0.6845.
    assert!(with(&[external("judge", 0.34)]).is_ok());
    let refused = with(&[external("judge", 0.35)]).unwrap_err().to_string();
    assert!(
        refused.contains("at rank 2, external terms of 1") && refused.contains("external terms of -1"),
        "{refused}"
    );
}

const D2: f64 = 0.630_929_753_571_457_4;

#[test]
fn the_default_reward_orders_outcomes() {
    let rewards = Rewards::new(&Options::default(), &completion::Options::default(), CANDIDATES).unwrap();
    assert_eq!(rewards.names(), ["form", "hit@1", "ndcg@3"]);
    assert!(rewards.violations().is_empty());
    let total = |form, rank| rewards.score(&outcome(form, rank)).total;
    assert_close(total(Form::WellFormed, Some(1)), 1.1);
    assert_close(total(Form::WellFormed, Some(3)), 0.35);
    assert_close(total(Form::WellFormed, None), 0.1);
    assert_close(total(Form::NoThinking, Some(1)), 0.0);
    let score = rewards.score(&outcome(Form::WellFormed, Some(2)));
    for (part, expected) in score.parts.iter().zip([1.0, 0.0, D2]) {
        assert_close(*part, expected);
    }
    let Extremes { best, worst_well_formed, worst } = rewards.extremes();
    assert_eq!((best.0.form, best.0.target_rank), (Form::WellFormed, Some(1)));
    assert_eq!((worst_well_formed.0.form, worst_well_formed.0.target_rank), (Form::WellFormed, None));
    assert!(!worst.0.form.is_well_formed());
    for (found, expected) in [(best.1, 1.1), (worst_well_formed.1, 0.1), (worst.1, 0.0)] {
        assert_close(found, expected);
    }
}

/// The value of each term for a well-formed and for a malformed answer.
#[test]
fn terms_match_their_formulas() {
    let of = |term: Term, change: &dyn Fn(&mut Outcome)| {
        let rewards = unchecked(vec![Term { weight: 1.0, ..term }]);
        let mut outcome = outcome(Form::WellFormed, Some(2));
        change(&mut outcome);
        rewards.score(&outcome).total
    };
    let rank = |rank: Option<usize>| move |outcome: &mut Outcome| outcome.target_rank = rank;
    let malformed = |outcome: &mut Outcome| outcome.form = Form::InventedItem;

    assert_close(of(form(), &rank(None)), 1.0);
    assert_close(of(term(Name::Hit, Some(2), 1.0), &rank(Some(2))), 1.0);
    assert_close(of(term(Name::Ndcg, Some(3), 1.0), &rank(Some(2))), D2);
    assert_close(of(Term::new(Name::ReciprocalRank), &rank(Some(3))), 1.0 / 3.0);

    let improved = Term::new(Name::FormIfImproved);
    let given = |given: usize, rank: Option<usize>| {
        move |outcome: &mut Outcome| (outcome.setting.given_rank, outcome.target_rank) = (given, rank)
    };
    for (given_rank, rank, expected) in
        [(3, Some(2), 1.0), (2, Some(2), 0.0), (2, Some(3), 0.0), (1, Some(1), 1.0), (9, None, 0.0)]
    {
        assert_close(of(improved.clone(), &given(given_rank, rank)), expected);
    }

    let discounted = term(Name::DiscountedHit, Some(2), 1.0);
    let popular = |share: f64| move |outcome: &mut Outcome| outcome.setting.popularity = share;
    assert_close(of(discounted.clone(), &popular(0.0)), 1.0);
    assert_close(of(discounted.clone(), &popular(0.8)), 0.6);
    assert_close(of(Term { discount: Some(1.0), ..discounted.clone() }, &popular(0.8)), 0.2);
    assert_close(of(discounted, &rank(Some(3))), 0.0);

    let penalty = Term { negatives: Some(4), ..Term::new(Name::RankPenalty) };
    assert_close(of(penalty.clone(), &|outcome| outcome.hard_negatives = 0.4), -0.4);
    assert_close(of(penalty, &malformed), -1.0);

    let swap = Term::new(Name::CounterfactualSwap);
    assert_close(of(swap.clone(), &rank(Some(1))), 1.0 / 3.0);
    assert_close(of(swap.clone(), &rank(Some(2))), (D2 - 1.0 + D2) / 3.0);
    assert_close(of(swap.clone(), &rank(Some(3))), (0.5 - 1.0 + 0.5 - D2 + 0.5) / 3.0);
    assert_close(of(swap.clone(), &rank(None)), -(1.0 + D2 + 0.5) / 3.0);
    assert_close(of(swap, &malformed), -(1.0 + D2 + 0.5) / 3.0);

    assert_close(of(Term::new(Name::Titles), &|outcome| outcome.titles = 0.75), 0.75);
    assert_close(of(Term::new(Name::Titles), &malformed), 0.0);

    let length = Term { limit: Some(200), ..Term::new(Name::Length) };
    for (characters, expected) in [(0, 0.0), (200, 0.0), (250, -0.25), (400, -1.0), (100_000, -1.0)] {
        assert_close(of(length.clone(), &move |outcome| outcome.characters = characters), expected);
    }
    assert_close(of(length, &malformed), -1.0);

    let paper = Term::new(Name::Paper);
    assert_close(of(paper.clone(), &rank(Some(1))), 1.0);
    assert_close(of(paper.clone(), &rank(Some(2))), 0.3);
    assert_close(of(paper.clone(), &malformed), 0.3);
    assert_close(of(paper, &|outcome| (outcome.target_rank, outcome.listed) = (None, 0)), -1.0);
}

#[test]
fn misaligned_rewards_are_rejected() {
    // Without a form term a well-formed miss earns the same as a malformed answer.
    let no_form = refused(vec![term(Name::Ndcg, Some(3), 1.0)]);
    assert!(!no_form.worse.form.is_well_formed());
    assert_eq!((no_form.better.form, no_form.better.target_rank), (Form::WellFormed, None));
    // Form alone, or a hit among the first three, does not distinguish the correct ranking.
    for terms in [vec![form()], vec![form(), term(Name::Hit, Some(3), 1.0)]] {
        let violation = refused(terms);
        assert_eq!(violation.better.target_rank, Some(1));
        assert!(violation.worse.form.is_well_formed());
    }
    // A penalty at rank two that exceeds that of a miss.
    let inverted =
        vec![term(Name::Form, None, 2.0), term(Name::Hit, Some(1), 3.0), term(Name::Hit, Some(2), -1.0)];
    assert!(refused(inverted).rule.contains("a lower rank"));
    // Rewarding hard negatives rewards moving the target down.
    let hard = Term { negatives: Some(1), weight: -0.5, ..Term::new(Name::RankPenalty) };
    let violation = refused(vec![term(Name::Form, None, 1.0), hit(), hard]);
    assert!(violation.rule.contains("a lower rank") && violation.worse.hard_negatives > 0.0, "{violation}");
}

#[test]
fn other_properties_are_checked_at_their_limits() {
    let with = |other: Term| vec![term(Name::Form, None, 1.0), hit(), other];
    let length = |weight| Term { limit: Some(100), weight, ..Term::new(Name::Length) };
    let titles = |weight| Term { weight, ..Term::new(Name::Titles) };
    let discounted = |weight| term(Name::DiscountedHit, Some(1), weight);
    let penalty = |weight| Term { negatives: Some(9), weight, ..Term::new(Name::RankPenalty) };
    for other in
        [length(0.9), titles(0.9), discounted(5.0), penalty(5.0), Term::new(Name::CounterfactualSwap)]
    {
        rewards(with(other)).unwrap();
    }
    // A long correct answer must not earn less than a short wrong one; the same holds for wrong titles.
    let violation = refused(with(length(1.0)));
    assert_eq!((violation.better.target_rank, violation.better.characters), (Some(1), 200));
    assert_eq!((violation.worse.characters, violation.rule.contains("a wrong ranking")), (0, true));
    assert!(violation.to_string().contains("with the target at rank 1, 200 characters earns"), "{violation}");
    let violation = refused(with(titles(1.5)));
    assert!((violation.better.titles, violation.worse.titles) == (0.0, 1.0), "{violation}");
    // A discounted hit that is worth nothing if the target is the most popular item.
    let nothing_left = Term { discount: Some(1.0), ..discounted(1.0) };
    let violation = refused(vec![form(), nothing_left]);
    assert_close(violation.better.setting.popularity, 1.0);
    // A form term that is paid only for improvements leaves other well-formed answers unrewarded.
    let violation = refused(vec![term(Name::FormIfImproved, None, 1.0), term(Name::Hit, Some(1), 1.0)]);
    assert!(!violation.worse.form.is_well_formed());
    rewards(vec![form(), term(Name::FormIfImproved, None, 0.2), term(Name::Ndcg, Some(3), 1.0)]).unwrap();
}

#[test]
fn the_papers_reward_fails_as_documented() {
    let violation = refused(vec![Term::new(Name::Paper)]);
    assert!(violation.rule.contains("a malformed answer"));
    assert_eq!((violation.worse.target_rank, violation.better.target_rank), (Some(1), Some(2)));
    assert_close(violation.worse_total, 1.0);
    assert_close(violation.better_total, 0.3);
    let page = include_str!("../../../../docs/guides/rewards.md");
    let message = violation.to_string();
    assert!(page.contains(&message), "docs/guides/rewards.md does not have {message:?}");

    let through = unchecked(vec![Term::new(Name::Paper)]);
    assert_eq!(through.violations().len(), 1, "well-formed answers are ordered correctly");
    let invented = Outcome { target_rank: None, ..outcome(Form::InventedItem, None) };
    assert_close(through.score(&invented).total, through.score(&outcome(Form::WellFormed, None)).total);
}

#[test]
fn a_list_of_all_candidates_cannot_miss() {
    let answer = completion::Options { list_length: CANDIDATES, ..answer() };
    let terms = vec![form(), term(Name::ReciprocalRank, None, 1.0)];
    let rewards = Rewards::new(&Options { terms, ..Options::default() }, &answer, CANDIDATES).unwrap();
    assert_eq!(rewards.extremes().worst_well_formed.0.target_rank, Some(CANDIDATES));
}

#[test]
fn terms_are_validated() {
    let needs = |term: Term| match rewards(vec![form(), term]) {
        Err(Error::Needs { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    assert!(matches!(rewards(vec![]), Err(Error::NoTerms)));
    assert!(matches!(rewards(vec![form(), term(Name::Hit, None, 1.0)]), Err(Error::K { k: None, .. })));
    assert!(matches!(rewards(vec![form(), term(Name::Ndcg, Some(4), 1.0)]), Err(Error::K { .. })));
    assert!(matches!(rewards(vec![form(), form()]), Err(Error::Twice(_))));
    assert!(matches!(rewards(vec![term(Name::Form, None, f64::NAN)]), Err(Error::Weight { .. })));
    assert_eq!(needs(Term::new(Name::Length)), "limit");
    assert_eq!(needs(Term { limit: Some(0), ..Term::new(Name::Length) }), "limit");
    assert_eq!(needs(Term::new(Name::RankPenalty)), "negatives");
    assert_eq!(needs(Term { discount: Some(1.5), ..term(Name::DiscountedHit, Some(1), 1.0) }), "discount");
    for (term, expected) in [
        (term(Name::Form, Some(1), 1.0), "k"),
        (Term { limit: Some(1), ..hit() }, "limit"),
        (Term { negatives: Some(1), ..Term::new(Name::ReciprocalRank) }, "negatives"),
        (Term { discount: Some(0.5), ..hit() }, "discount"),
    ] {
        assert!(matches!(rewards(vec![term]), Err(Error::TakesNot { key, .. }) if key == expected));
    }
    let ids = completion::Options { layout: Layout::Ids, ..answer() };
    let titles = Options { terms: vec![Term::new(Name::Titles)], ..Options::default() };
    assert!(matches!(Rewards::new(&titles, &ids, CANDIDATES), Err(Error::NotTitled)));
    for item_penalty in [0.0, -1.0, f64::NAN] {
        let options = Options { item_penalty, ..Options::default() };
        let refused = Rewards::new(&options, &answer(), CANDIDATES);
        assert!(matches!(refused, Err(Error::ItemPenalty(_))), "{item_penalty}");
    }
}

#[test]
fn terms_are_parsed_from_a_run_file() {
    let json = r#"{"terms": [{"name": "reciprocal_rank"}, {"name": "ndcg", "k": 3, "weight": 0.5}], "check": "warn"}"#;
    let options: Options = serde_json::from_str(json).unwrap();
    assert_eq!(options.terms, [term(Name::ReciprocalRank, None, 1.0), term(Name::Ndcg, Some(3), 0.5)]);
    assert_eq!(options.check, Check::Warn);
    assert!(serde_json::from_str::<Options>(r#"{"terms": [{"name": "form", "wieght": 1}]}"#).is_err());
}

/// A term of any kind with any weight.
fn any_term() -> impl Strategy<Value = Term> {
    let name = prop::sample::select(vec![
        Name::FormIfImproved,
        Name::ReciprocalRank,
        Name::DiscountedHit,
        Name::RankPenalty,
        Name::CounterfactualSwap,
        Name::Titles,
        Name::Length,
        Name::Paper,
    ]);
    (name, -0.3..0.8_f64, 1..=LISTED, 1..4_usize).prop_map(|(name, weight, k, negatives)| Term {
        k: (name == Name::DiscountedHit).then_some(k),
        negatives: (name == Name::RankPenalty).then_some(negatives),
        limit: (name == Name::Length).then_some(60),
        weight,
        ..Term::new(name)
    })
}

/// A well-formed or malformed answer to the question below, which lists some of the items.
fn any_answer() -> impl Strategy<Value = String> {
    let item = (1..14_u64, any::<bool>()).prop_map(|(id, titled)| {
        if titled { format!("[ITEM_{id}] Title {id}") } else { format!("[ITEM_{id}]") }
    });
    let candidates = Just((1..=CANDIDATES as u64).collect::<Vec<_>>()).prop_shuffle();
    let in_form = (candidates, 0..100_usize).prop_map(|(ids, thought)| {
        let items: Vec<String> = ids[..LISTED].iter().map(|id| format!("[ITEM_{id}] Title {id}")).collect();
        format!("<think>{}</think>\n{}", "so ".repeat(1 + thought), items.join("\n"))
    });
    prop_oneof![
        3 => in_form,
        1 => (any::<bool>(), prop::collection::vec(item, 0..5)).prop_map(|(thinking, items)| {
            format!("{}{}", if thinking { "<think>so</think>\n" } else { "" }, items.join("\n"))
        }),
    ]
}

proptest! {
    /// Rewards that pass the check satisfy its rules on actual completions.
    #[test]
    fn the_check_holds_for_actual_completions(
        others in prop::collection::vec(any_term(), 0..4),
        weights in (0.0..4.0_f64, 0.0..3.0_f64, -0.2..2.0_f64),
        target in 1..=CANDIDATES as u64,
        answers in prop::collection::vec(any_answer(), 12),
    ) {
        let mut terms = others;
        terms.extend([
            term(Name::Form, None, weights.0),
            term(Name::Hit, Some(1), weights.1),
            term(Name::Ndcg, Some(3), weights.2),
        ]);
        let rewards = rewards(terms);
        prop_assume!(rewards.is_ok());
        let rewards = rewards.unwrap();
        let catalogue = Catalogue::new((1..=12).map(|id| Item {
            id: ItemId(id), title: format!("Title {id}"), caption: None, interactions: id * id % 7,
        }));
        let candidates: Vec<ItemId> = (1..=CANDIDATES as u64).map(ItemId).collect();
        let (options, thinking_start) = (answer(), ThinkingStart::Absent);
        let expected = Expected { options: &options, candidates: &candidates, catalogue: &catalogue, thinking_start };
        let popularity = Popularity::of(&catalogue);
        let question =
            Question { target: ItemId(target), candidates: &candidates, catalogue: &catalogue, popularity: &popularity };
        let score = |text: &String| {
            let outcome = rewards.outcome(&parse(text, &expected), text, &question, Vec::new());
            let total = rewards.score(&outcome).total;
            (outcome, total)
        };
        let scored: Vec<(Outcome, f64)> = answers.iter().map(score).collect();
        for (text, (outcome, total)) in answers.iter().zip(&scored) {
            let Some(rank) = outcome.scored_rank().filter(|&rank| rank < LISTED) else { continue };
            // The reasoning is the first line.
            let mut lines: Vec<&str> = text.lines().collect();
            lines.swap(rank, rank + 1);
            let (moved, moved_total) = score(&lines.join("\n"));
            prop_assert_eq!(moved.target_rank, Some(rank + 1));
            prop_assert!(moved_total <= total + 1e-12, "{} earns {}, {} earns {}", moved, moved_total, outcome, total);
        }
        let Extremes { best, worst_well_formed, worst } = rewards.extremes();
        for (one, total) in &scored {
            prop_assert!(*total <= best.1 + 1e-9 && *total >= worst.1 - 1e-9, "{} earns {}", one, total);
            if one.form.is_well_formed() {
                prop_assert!(*total >= worst_well_formed.1 - 1e-9);
            }
            for (other, other_total) in &scored {
                let malformed = !one.form.is_well_formed() && other.form.is_well_formed();
                let wrong = one.form.is_well_formed()
                    && one.target_rank != Some(1)
                    && other.scored_rank() == Some(1);
                prop_assert!(
                    !(malformed || wrong) || total < other_total,
                    "{} earns {}, {} earns {}", one, total, other, other_total
                );
            }
        }
    }
}
