//! Metrics of a ranker's behaviour: the format of answers, the positions and the popularity of first choices.
//!
//! docs/guides/evaluation.md defines them under these names.

use podium_recsys::completion::Form;
use podium_recsys::diagnostics::Percentiles;
use podium_recsys::ranking::probes::{Placed, coverage, first_positions, user_means};
use podium_recsys::ranking::{Estimate, RankedAnswer, compare, estimate_values};

use crate::lists::Lists;
use crate::metric_value::MetricValue;
use crate::plan::Plan;
use crate::ranked::{Answers, Ranked, Ranking, Table};

/// Adds the probes of one table.
pub(crate) fn add(plan: &Plan, table: &Table, values: &mut Vec<MetricValue>) {
    if plan.asked.generated {
        for (policy, answers) in plan.policies.iter().zip(&table.answers) {
            forms(plan, (&policy.name, Ranking::Generated), table.lists, answers, values);
        }
    }
    let popularity = Percentiles::of(&plan.dataset.catalogue);
    let offered: Vec<&RankedAnswer> =
        table.answers.first().map(|answers| answers.draws.iter().flatten().collect()).unwrap_or_default();
    for ranked in &table.ranked {
        let adds = Adds { seed: plan.run.candidates.evaluation_seed, lists: table.lists, ranked };
        if ranked.ranking != Ranking::Baseline && table.lists != Lists::Catalogue {
            adds.first_positions(values);
            adds.other_way_round(values);
        }
        adds.popularity(plan, &popularity, values);
        if table.lists == Lists::Catalogue {
            continue;
        }
        let first = ranked.draws.iter().flatten().filter_map(|placed| Some(placed.first?.item));
        let share = coverage(first, offered.iter().flat_map(|answer| answer.candidates.iter().copied()));
        let users = plan.users().len();
        values.push(adds.plain("catalogue_first", share, users));
    }
}

/// Adds the fractions of answer formats: all occurring ones, and always the well-formed one.
fn forms(plan: &Plan, who: (&str, Ranking), lists: Lists, answers: &Answers, values: &mut Vec<MetricValue>) {
    let seed = plan.run.candidates.evaluation_seed;
    let mut of_some = |(name, k): (&str, Option<usize>), measure: &dyn Fn(&RankedAnswer) -> Option<f64>| {
        let [means] = user_means(&answers.draws, |answer| measure(answer).map(|value| [value]));
        let estimate = estimate_values(&[means], seed).pop();
        values.extend(estimate.map(|estimate| MetricValue::new(who, lists, name, k, estimate)));
    };
    of_some(("valid_HR", Some(1)), &|answer| {
        let first = answer.named_candidate()?;
        Some(f64::from(first == answer.target))
    });
    let mut add = |name: &str, measure: &dyn Fn(&RankedAnswer) -> f64| {
        of_some((name, None), &|answer| Some(measure(answer)));
    };
    add("valid", &|answer| f64::from(answer.named_candidate().is_some()));
    add("well_formed", &|answer| f64::from(answer.form.is_well_formed()));
    add("malformed", &|answer| f64::from(!answer.form.is_well_formed()));
    for form in Form::ALL.into_iter().filter(|form| !form.is_well_formed()) {
        if answers.draws.iter().flatten().any(|answer| answer.form == form) {
            add(&format!("form/{}", form.name()), &|answer| f64::from(answer.form == form));
        }
    }
    add("cut_off", &|answer| f64::from(answer.cut_off));
    add("tokens", &|answer| answer.tokens as f64);
}

struct Adds<'a> {
    seed: u64,
    lists: Lists,
    ranked: &'a Ranked,
}

impl Adds<'_> {
    fn value(&self, metric: &str, k: Option<usize>, estimate: Estimate) -> MetricValue {
        MetricValue::new(self.ranked.who(), self.lists, metric, k, estimate)
    }

    fn plain(&self, metric: &str, mean: f64, count: usize) -> MetricValue {
        self.value(metric, None, Estimate { mean, low: mean, high: mean, count }).plain()
    }

    /// Adds the prompt positions of first choices.
    fn first_positions(&self, values: &mut Vec<MetricValue>) {
        let position = |placed: &Placed| placed.first.map(|first| first.position);
        let draws: Vec<Vec<Option<usize>>> =
            self.ranked.draws.iter().map(|draw| draw.iter().map(position).collect()).collect();
        let Some(found) = first_positions(&draws, self.ranked.candidates, self.seed) else { return };
        let users = found.shares.first().map_or(0, |share| share.count);
        values.extend((1..).zip(&found.shares).map(|(k, &share)| self.value("first_at", Some(k), share)));
        let distance = self.plain("first_at_distance", found.distance, users);
        values.push(MetricValue { p_value: Some(found.p_value), ..distance });
        values.push(self.plain("first_at_distance_by_chance", found.distance_by_chance, users));
    }

    /// Adds the frequency with which the first choice is unchanged in the reversed list.
    fn other_way_round(&self, values: &mut Vec<MetricValue>) {
        let both = |(one, other): (&Placed, &Placed)| Some([f64::from(one.first?.item == other.first?.item)]);
        let pairs: Vec<Vec<Option<[f64; 1]>>> = self
            .ranked
            .draws
            .iter()
            .zip(&self.ranked.reversed)
            .map(|(draw, reversed)| draw.iter().zip(reversed).map(both).collect())
            .collect();
        let means = user_means(&pairs, |same| *same);
        let estimate = estimate_values(&means, self.seed).pop();
        values.extend(estimate.map(|estimate| self.value("same_first_reversed", None, estimate)));
    }

    /// Adds the popularity of first choices and of the same users' targets.
    fn popularity(&self, plan: &Plan, popularity: &Percentiles, values: &mut Vec<MetricValue>) {
        let users = plan.users();
        let both = |(placed, user): (&Placed, &podium_recsys::User)| {
            Some([popularity.percentile(placed.first?.item)?, popularity.percentile(user.target())?])
        };
        let draws: Vec<Vec<Option<[f64; 2]>>> =
            self.ranked.draws.iter().map(|draw| draw.iter().zip(users).map(both).collect()).collect();
        let [first, target] = user_means(&draws, |pair| *pair);
        let names = ["first_popularity", "target_popularity"];
        let estimates = names.into_iter().zip(estimate_values(&[&first, &target], self.seed));
        values.extend(estimates.map(|(name, estimate)| self.value(name, None, estimate)));
        if let Some(comparison) = compare(&first, &target, self.seed) {
            let excess = self.value("first_less_target_popularity", None, comparison.difference);
            values.push(MetricValue { p_value: Some(comparison.p_value), ..excess });
        }
    }
}
