//! Paired differences: the policy minus the compared policies, and every policy minus the baselines.

use podium_recsys::ranking::Metric;

use crate::lists::Lists;
use crate::metric_value::{MetricValue, name_and_cut};
use crate::plan::Plan;
use crate::ranked::{Ranked, Ranking, Table};

/// Adds the comparisons of one table.
pub(crate) fn add(plan: &Plan, table: &Table, values: &mut Vec<MetricValue>) {
    let first = plan.policies.first().map(|policy| policy.name.as_str());
    let others: Vec<&str> = plan.policies.iter().skip(1).map(|policy| policy.name.as_str()).collect();
    for ranked in table.ranked.iter().filter(|ranked| ranked.ranking != Ranking::Baseline) {
        for other in &table.ranked {
            let policies = Some(ranked.policy.as_str()) == first
                && others.contains(&other.policy.as_str())
                && other.ranking == ranked.ranking;
            if policies || other.ranking == Ranking::Baseline {
                compare(plan, table.lists, ranked, other, values);
            }
        }
    }
}

fn compare(plan: &Plan, lists: Lists, one: &Ranked, other: &Ranked, values: &mut Vec<MetricValue>) {
    let (ranks, others) = (one.ranks(), other.ranks());
    for metric in one.metrics(&plan.asked.at) {
        // The MRR of a shorter list is not comparable; MRR@K is.
        if metric == Metric::ReciprocalRank && one.listed != other.listed {
            continue;
        }
        let Some(comparison) = ranks.compare(&others, metric, plan.run.candidates.evaluation_seed) else {
            continue;
        };
        let (name, k) = name_and_cut(metric);
        let value = MetricValue::new(one.who(), lists, name, k, comparison.difference);
        values.push(value.compared(&other.policy, &comparison));
    }
}
