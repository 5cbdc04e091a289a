//! Verifies the ordering of rewards over all outcomes that the terms depend on.
//!
//! The check evaluates each property of an [`Outcome`] that a term depends on at the limits of its range. Every
//! term is linear or a step in each of them, so that its extremes are at the limits. Properties of the question
//! (the target's popularity, its position in the prompt) are equal on both sides of a comparison, since rewards
//! are compared within a group. All other properties vary independently on both sides.

use super::earning::{Earning, Extremes, Violation};
use super::outcome::{self, Outcome, Setting};
use super::terms::Terms;
use super::value::Value;
use crate::completion::Form;

const MALFORMED: &str = "a malformed answer to earn less than any well-formed one";
const WRONG: &str = "a wrong ranking to earn less than the right one";
const DOWN: &str = "a lower rank of the target to earn no more than a higher one";

/// Returns the rules that `terms` violate, each with its largest violation.
pub(super) fn violations(terms: &Terms) -> Vec<Violation> {
    let space = Space::of(terms);
    let mut found = [None, None, None];
    for setting in space.settings() {
        let earn = |outcomes: Vec<Outcome>| -> Vec<Earning> {
            let scored = outcomes.into_iter().map(|outcome| {
                let total = terms.score(&outcome).total;
                (outcome, total)
            });
            scored.collect()
        };
        let malformed = earn(space.malformed(setting));
        let by_rank: Vec<Vec<Earning>> =
            space.ranks().map(|rank| earn(space.well_formed(setting, rank))).collect();
        let all: Vec<Earning> = by_rank.concat();
        let [right, wrong @ ..] = by_rank.as_slice() else { continue };
        let [malformed_rule, wrong_rule, down_rule] = &mut found;
        note(malformed_rule, most(&malformed), least(&all), f64::lt, MALFORMED);
        note(wrong_rule, most(&wrong.concat()), least(right), f64::lt, WRONG);
        for (rank, pair) in (1..).zip(by_rank.windows(2)) {
            // Pairs of outcomes at neighbouring ranks that differ in nothing else, except that a hard negative may take
            // the target's position.
            for (higher, lower) in pair[0].iter().zip(&pair[1]) {
                note(down_rule, Some(lower.clone()), Some(higher.clone()), f64::le, DOWN);
                if space.hard.len() > 1 && higher.0.hard_negatives <= 0.0 {
                    let hard_negatives = outcome::share_of_ranks(rank..=rank, space.list_length);
                    let overtaken = earn(vec![Outcome { hard_negatives, ..lower.0.clone() }]);
                    note(down_rule, most(&overtaken), Some(higher.clone()), f64::le, DOWN);
                }
            }
        }
    }
    found.into_iter().flatten().collect()
}

/// Returns the highest and lowest rewards.
pub(super) fn extremes(terms: &Terms) -> Extremes {
    let space = Space::of(terms);
    let earn = |outcome: Outcome| {
        let total = terms.score(&outcome).total;
        (outcome, total)
    };
    let (mut well_formed, mut malformed) = (Vec::new(), Vec::new());
    for setting in space.settings() {
        well_formed.extend(space.ranks().flat_map(|rank| space.well_formed(setting, rank)).map(earn));
        malformed.extend(space.malformed(setting).into_iter().map(earn));
    }
    let right = earn(space.right());
    // Ties prefer a well-formed outcome as the best and a malformed one as the worst.
    Extremes {
        best: most(&[well_formed.as_slice(), &malformed].concat()).unwrap_or_else(|| right.clone()),
        worst_well_formed: least(&well_formed).unwrap_or_else(|| right.clone()),
        worst: least(&[malformed, well_formed].concat()).unwrap_or(right),
    }
}

/// Returns the first outcome with the highest reward.
fn most(earnings: &[Earning]) -> Option<Earning> {
    earnings.iter().reduce(|best, one| if one.1 > best.1 { one } else { best }).cloned()
}

/// Returns the first outcome with the lowest reward.
fn least(earnings: &[Earning]) -> Option<Earning> {
    earnings.iter().reduce(|worst, one| if one.1 < worst.1 { one } else { worst }).cloned()
}

/// Records a violation if it is larger than the known one.
fn note(
    noted: &mut Option<Violation>,
    worse: Option<Earning>,
    better: Option<Earning>,
    holds: fn(&f64, &f64) -> bool,
    rule: &'static str,
) {
    let (Some((worse, worse_total)), Some((better, better_total))) = (worse, better) else { return };
    let gap = worse_total - better_total;
    let known = noted.as_ref().map(|noted| noted.worse_total - noted.better_total);
    if !holds(&worse_total, &better_total) && known.is_none_or(|known| gap > known) {
        *noted = Some(Violation { worse, worse_total, better, better_total, rule });
    }
}

/// All outcomes to be evaluated.
struct Space {
    list_length: usize,
    candidates: usize,
    given_ranks: usize,
    popularity: &'static [f64],
    titles: &'static [f64],
    characters: Vec<usize>,
    /// Numbers of ranks above the target that hard negatives may occupy.
    hard: Vec<usize>,
    /// The highest and the lowest values of all external terms; their weights are not negative.
    external: Vec<Vec<f64>>,
}

impl Space {
    /// Properties that no term depends on have a single value.
    fn of(terms: &Terms) -> Self {
        let lists = terms.lists;
        let mut space = Self {
            list_length: lists.length,
            candidates: lists.candidates,
            given_ranks: 1,
            popularity: &[0.0],
            titles: &[1.0],
            characters: vec![0],
            hard: vec![0],
            external: vec![terms.external.iter().map(|term| term.max).collect()],
        };
        if !terms.external.is_empty() {
            space.external.push(terms.external.iter().map(|term| term.min).collect());
        }
        for (value, _) in &terms.values {
            match *value {
                Value::FormIfImproved => space.given_ranks = lists.candidates.max(1),
                Value::DiscountedHit { .. } => space.popularity = &[0.0, 1.0],
                Value::Titles => space.titles = &[1.0, 0.0],
                Value::Length { limit } => space.characters.push(limit.saturating_mul(2)),
                Value::RankPenalty { negatives } => space.hard.push(negatives),
                Value::Form | Value::Ranking(_) | Value::CounterfactualSwap | Value::Paper => {}
            }
        }
        space
    }

    /// Returns the correct ranking, with all other properties at their best.
    fn right(&self) -> Outcome {
        Outcome {
            form: Form::WellFormed,
            target_rank: Some(1),
            listed: self.list_length,
            titles: 1.0,
            characters: 0,
            hard_negatives: 0.0,
            external: self.external.first().cloned().unwrap_or_default(),
            setting: Setting { given_rank: 1, popularity: 0.0 },
        }
    }

    fn settings(&self) -> impl Iterator<Item = Setting> {
        let setting =
            |given_rank| self.popularity.iter().map(move |&popularity| Setting { given_rank, popularity });
        (1..=self.given_ranks).flat_map(setting)
    }

    /// Returns the possible ranks of the target in a well-formed answer, best first.
    fn ranks(&self) -> impl Iterator<Item = Option<usize>> {
        let unlisted = (self.list_length < self.candidates).then_some(None);
        (1..=self.list_length).map(Some).chain(unlisted)
    }

    /// Returns the well-formed outcomes with the target at a rank: equally many for each rank, in the same order.
    fn well_formed(&self, setting: Setting, rank: Option<usize>) -> Vec<Outcome> {
        self.outcomes(Form::WellFormed, setting, rank, self.list_length)
    }

    fn malformed(&self, setting: Setting) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for form in Form::ALL.into_iter().filter(|form| !form.is_well_formed()) {
            outcomes.extend(self.outcomes(form, setting, None, 0));
            // These forms have no list.
            if !matches!(form, Form::Empty | Form::UnclosedThinking | Form::NoList) {
                let ranks = (1..=self.list_length).map(Some).chain([None]);
                outcomes.extend(ranks.flat_map(|rank| self.outcomes(form, setting, rank, self.list_length)));
            }
        }
        outcomes
    }

    fn outcomes(
        &self,
        form: Form,
        setting: Setting,
        target_rank: Option<usize>,
        listed: usize,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for &titles in self.titles {
            for &characters in &self.characters {
                for &hard in &self.hard {
                    let above = target_rank.map_or(listed, |rank| rank - 1).min(hard);
                    let hard_negatives = outcome::share_of_ranks(1..=above, self.list_length);
                    for external in &self.external {
                        let external = external.clone();
                        let facts =
                            Outcome { titles, characters, hard_negatives, external, setting, ..self.right() };
                        outcomes.push(Outcome { form, target_rank, listed, ..facts });
                    }
                }
            }
        }
        outcomes
    }
}
