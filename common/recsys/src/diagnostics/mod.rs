//! Metrics of the answers of a step or an evaluation beyond their rewards, which reveal a policy that exploits a
//! shortcut.
//!
//! | metric | over | meaning |
//! |---|---|---|
//! | `groups/frac_all_hit` | prompts | fraction in which every answer ranks the target first |
//! | `groups/frac_all_miss` | prompts | fraction in which no well-formed answer lists the target |
//! | `groups/frac_all_malformed` | prompts | fraction in which no answer is well-formed; a subset of all-miss |
//! | `groups/reward/<kind>/<value>` | prompts of that kind | mean reward, see [`kinds`] |
//! | `completions/well_formed` | answers | fraction of well-formed answers |
//! | `completions/form/<form>` | answers | fraction of each defect, see [`Form`]; with the well-formed ones they add up to 1 |
//! | `ranking/copied_order` | well-formed answers | fraction that lists the first candidates in the order of the prompt |
//! | `ranking/order_correlation` | well-formed answers with at least two items | mean Kendall's τ between the listed order and the prompt's: 1 for the same order, -1 for the reverse; 0 by chance |
//! | `ranking/first_position` | well-formed answers | mean position, from 1, of the item ranked first in the prompt's candidate list; (n + 1) / 2 by chance |
//! | `ranking/first_popularity` | well-formed answers | mean popularity of the item ranked first, see [`Percentiles`]; about that of the candidates by chance |
//! | `ranking/target_popularity` | all answers | the same for the target: the value of `first_popularity` if every answer were correct |
//!
//! A metric without values is omitted.

pub mod kinds;
mod percentiles;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use percentiles::Percentiles;

use crate::completion::Form;
use crate::dataset::Dataset;
use crate::ids::ItemId;
use crate::task::{Case, Grade};
use kinds::Kinds;

/// An answer to a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its format.
    pub form: Form,
    /// Rank of the target in a well-formed answer, from 1.
    pub rank: Option<usize>,
    /// The listed items, best first.
    pub ranking: Vec<ItemId>,
    /// Its reward.
    pub reward: f64,
}

impl From<Grade> for Answer {
    fn from(grade: Grade) -> Self {
        let Grade { outcome, score, ranking, .. } = grade;
        Self { form: outcome.form, rank: outcome.scored_rank(), ranking, reward: score.total }
    }
}

/// The parts of a data set that the metrics need.
#[derive(Debug)]
pub struct Diagnostics {
    popularity: Percentiles,
    kinds: Kinds,
}

impl Diagnostics {
    /// Creates the diagnostics of `dataset`.
    pub fn new(dataset: &Dataset) -> Self {
        let popularity = Percentiles::of(&dataset.catalogue);
        Self { kinds: Kinds::of(dataset, &popularity), popularity }
    }

    /// Returns the metrics over prompts and their answers, by name.
    pub fn metrics(&self, cases: &[(Case, Vec<Answer>)]) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        let mut put = |name: String, mean: Mean| metrics.extend(mean.value().map(|value| (name, value)));
        for (name, holds) in [
            ("all_hit", (|answer| answer.rank == Some(1)) as fn(&Answer) -> bool),
            ("all_miss", |answer| answer.rank.is_none()),
            ("all_malformed", |answer| !answer.form.is_well_formed()),
        ] {
            let all = cases.iter().map(|(_, answers)| f64::from(answers.iter().all(holds)));
            put(format!("groups/frac_{name}"), all.collect());
        }
        let mut by_kind: BTreeMap<String, Mean> = BTreeMap::new();
        for (case, answers) in cases {
            for name in self.kinds.of_case(case, &self.popularity) {
                let mean = by_kind.entry(name).or_default();
                for answer in answers {
                    mean.add(answer.reward);
                }
            }
        }
        for (name, mean) in by_kind {
            put(format!("groups/reward/{name}"), mean);
        }
        let answers = || cases.iter().flat_map(|(case, answers)| answers.iter().map(move |one| (case, one)));
        for form in Form::ALL {
            let prefix = if form.is_well_formed() { "" } else { "form/" };
            let shares = answers().map(|(_, answer)| f64::from(answer.form == form));
            put(format!("completions/{prefix}{}", form.name()), shares.collect());
        }
        let popularity = |item: ItemId| self.popularity.percentile(item);
        let targets = answers().filter_map(|(case, _)| popularity(case.target));
        put("ranking/target_popularity".into(), targets.collect());
        let well_formed = || answers().filter(|(_, answer)| answer.form.is_well_formed());
        let positions = || well_formed().map(|(case, answer)| positions(&case.candidates, &answer.ranking));
        let copied = positions().map(|positions| f64::from(positions.iter().copied().eq(0..positions.len())));
        put("ranking/copied_order".into(), copied.collect());
        put(
            "ranking/order_correlation".into(),
            positions().filter_map(|positions| kendall(&positions)).collect(),
        );
        let first = positions().filter_map(|positions| Some(*positions.first()? as f64 + 1.0));
        put("ranking/first_position".into(), first.collect());
        let first = well_formed().filter_map(|(_, answer)| popularity(*answer.ranking.first()?));
        put("ranking/first_popularity".into(), first.collect());
        metrics
    }
}

/// Returns the positions of listed items among the candidates, from 0.
fn positions(candidates: &[ItemId], ranking: &[ItemId]) -> Vec<usize> {
    ranking.iter().filter_map(|item| candidates.iter().position(|candidate| candidate == item)).collect()
}

/// Returns Kendall's τ between the order of `positions` and the ascending order (Kendall 1938); `None`
/// for fewer than two.
fn kendall(positions: &[usize]) -> Option<f64> {
    let pairs = || {
        let later = |(index, position)| positions[index + 1..].iter().map(move |other| (position, other));
        positions.iter().enumerate().flat_map(later)
    };
    let agreeing = pairs().filter(|(one, other)| one < other).count() as f64;
    let all = pairs().count() as f64;
    (all > 0.0).then(|| 2.0 * agreeing / all - 1.0)
}

/// Accumulates a mean.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl FromIterator<f64> for Mean {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut mean = Self::default();
        for value in values {
            mean.add(value);
        }
        mean
    }
}
