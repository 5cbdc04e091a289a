//! Tables of metrics for a terminal.

use std::fmt::Write as _;

use crate::evaluation::Evaluation;
use crate::lists::Lists;
use crate::metric_value::{ALL, MetricValue};
use crate::ranked::Ranking;
use crate::run_tables::laid_out;

/// Names of the metrics of lists, in the order of columns.
const LIST_METRICS: [&str; 5] = ["coverage", "gini", "novelty", "diversity", "cold"];

/// Returns the most important tables.
pub fn tables(evaluation: &Evaluation) -> String {
    let plan = &evaluation.plan;
    let mut text = String::new();
    for table in &evaluation.tables {
        let of = |value: &&MetricValue| value.negatives == table.lists;
        let values: Vec<&MetricValue> = evaluation.values.iter().filter(of).collect();
        let _ = writeln!(
            text,
            "\n{}: {}, {} {} users; 95 % intervals",
            plan.dataset.name,
            match table.lists {
                Lists::Sampled(_) => format!("{}, {} candidate samples", table.lists, plan.asked.draws),
                Lists::Catalogue => "all items outside the history as candidates".to_owned(),
            },
            plan.users().len(),
            plan.asked.part
        );
        for kind in ["HR", "NDCG", "MRR"] {
            text.push_str(&metrics(&values, kind));
        }
        let first = plan.policies.first().map_or("", |policy| policy.name.as_str());
        text.push_str(&comparisons(&values, first));
        text.push_str(&beyond_accuracy(&values));
        text.push_str(&probes(&values));
    }
    text
}

/// Returns the table of all rankers by the cutoffs of one kind of metric.
fn metrics(values: &[&MetricValue], kind: &str) -> String {
    let shown: Vec<&&MetricValue> = values
        .iter()
        .filter(|value| value.metric == kind && value.against.is_none() && value.slice == ALL)
        .collect();
    let mut cuts: Vec<Option<usize>> = Vec::new();
    for value in &shown {
        if !cuts.contains(&value.k) {
            cuts.push(value.k);
        }
    }
    cuts.sort_by_key(|k| k.unwrap_or(usize::MAX));
    if cuts.is_empty() {
        return String::new();
    }
    let name = |k: &Option<usize>| k.map_or_else(|| kind.to_owned(), |k| format!("{kind}@{k}"));
    let mut rows = vec![std::iter::once(String::new()).chain(cuts.iter().map(name)).collect::<Vec<_>>()];
    for who in rankers(&shown) {
        let cell = |k: &Option<usize>| {
            let value = shown.iter().find(|value| self::who(value) == who && value.k == *k);
            value.map_or_else(|| "–".to_owned(), |value| value.text())
        };
        rows.push(std::iter::once(label(who)).chain(cuts.iter().map(cell)).collect());
    }
    laid_out(&rows)
}

/// Returns the paired differences of a policy: the first cutoff of HR and the largest of NDCG.
fn comparisons(values: &[&MetricValue], policy: &str) -> String {
    let compared: Vec<&&MetricValue> =
        values.iter().filter(|value| value.against.is_some() && value.policy == policy).collect();
    let widest = compared.iter().filter(|value| value.metric == "NDCG").filter_map(|value| value.k).max();
    let is_shown = |value: &&&&MetricValue| match value.metric.as_str() {
        "HR" => value.k == Some(1),
        "NDCG" => {
            value.k == widest
                || !compared
                    .iter()
                    .any(|other| who(other) == who(value) && other.metric == "NDCG" && other.k > value.k)
        }
        _ => false,
    };
    let row = |value: &&&MetricValue| {
        let against = value.against.as_deref().unwrap_or_default();
        let p_value = value.p_value.map_or(String::new(), |p| format!("{p:.4}"));
        vec![format!("{} less {against}", label(who(value))), value.name(), value.text(), p_value]
    };
    let mut rows = vec![["paired difference", "", "", "p"].map(str::to_owned).to_vec()];
    rows.extend(compared.iter().filter(is_shown).map(row));
    if rows.len() > 1 { laid_out(&rows) } else { String::new() }
}

/// Returns the metrics of lists beyond accuracy at the largest cutoff of each ranker.
fn beyond_accuracy(values: &[&MetricValue]) -> String {
    let all: Vec<&&MetricValue> =
        values.iter().filter(|value| LIST_METRICS.contains(&value.metric.as_str())).collect();
    let columns: Vec<&str> =
        LIST_METRICS.into_iter().filter(|metric| all.iter().any(|value| value.metric == *metric)).collect();
    let mut rows = vec![
        ["beyond accuracy", "K"].into_iter().chain(columns.iter().copied()).map(str::to_owned).collect(),
    ];
    for who in rankers(&all) {
        let own = || all.iter().filter(|value| self::who(value) == who);
        let widest = own().filter_map(|value| value.k).max();
        let cell = |metric: &&str| {
            let value = own().find(|value| value.metric == **metric && value.k == widest);
            value.map_or_else(|| "–".to_owned(), |value| value.text())
        };
        let k = widest.map_or_else(String::new, |k| k.to_string());
        rows.push([label(who), k].into_iter().chain(columns.iter().map(cell)).collect::<Vec<_>>());
    }
    if rows.len() > 1 { laid_out(&rows) } else { String::new() }
}

/// Returns the probes of position and popularity, and the format of answers.
fn probes(values: &[&MetricValue]) -> String {
    let all: Vec<&&MetricValue> =
        values.iter().filter(|value| value.against.is_none() && value.slice == ALL).collect();
    let columns = [
        ("well-formed", "well_formed"),
        ("valid", "valid"),
        ("HR@1 of valid", "valid_HR"),
        ("position bias", "first_at_distance"),
        ("same first, reversed", "same_first_reversed"),
        ("popularity of first", "first_popularity"),
        ("of target", "target_popularity"),
        ("distinct first items", "catalogue_first"),
    ];
    let is_measured = |(_, metric): &(&str, &str)| all.iter().any(|value| value.metric == *metric);
    let columns: Vec<(&str, &str)> = columns.into_iter().filter(is_measured).collect();
    let mut rows = vec![
        std::iter::once("")
            .chain(columns.iter().map(|(title, _)| *title))
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    for who in rankers(&all) {
        let cell = |(_, metric): &(&str, &str)| {
            let value = all.iter().find(|value| self::who(value) == who && value.metric == *metric);
            value.map_or_else(
                || "–".to_owned(),
                |value| {
                    let p_value = value.p_value.map_or(String::new(), |p| format!(" (p {p:.4})"));
                    format!("{:.3}{p_value}", value.estimate)
                },
            )
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        // The best possible value is a mean without a first choice.
        if cells.iter().any(|cell| cell != "–") {
            rows.push(std::iter::once(label(who)).chain(cells).collect());
        }
    }
    laid_out(&rows)
}

fn who(value: &MetricValue) -> (&str, Ranking) {
    (&value.policy, value.ranking)
}

/// "policy/240, likelihood"
fn label((policy, ranking): (&str, Ranking)) -> String {
    if ranking == Ranking::Baseline { policy.to_owned() } else { format!("{policy}, {ranking}") }
}

/// Returns policies and rankings in the order of their first occurrence.
fn rankers<'a>(values: &[&&'a MetricValue]) -> Vec<(&'a str, Ranking)> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&who(value)) {
            found.push(who(value));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use podium_recsys::ranking::{Comparison, Estimate};

    use super::*;

    fn value(policy: &str, ranking: Ranking, metric: &str, k: Option<usize>) -> MetricValue {
        let estimate = Estimate { mean: 0.5, low: 0.25, high: 0.75, count: 9 };
        MetricValue::new((policy, ranking), Lists::Sampled(9), metric, k, estimate)
    }

    #[test]
    fn a_list_shorter_than_the_cutoff_has_a_dash() {
        let values = [
            value("p", Ranking::Generated, "HR", Some(1)),
            value("random", Ranking::Baseline, "HR", Some(1)),
            value("random", Ranking::Baseline, "HR", Some(5)),
        ];
        let text = metrics(&values.iter().collect::<Vec<_>>(), "HR");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("HR@1") && lines[1].ends_with("HR@5"), "{text}");
        assert!(lines[3].starts_with("p, generated   0.500 [0.250, 0.750]   –"), "{text}");
        assert!(lines[4].starts_with("random  "), "{text}");
        assert_eq!(metrics(&[], "HR"), "");
    }

    #[test]
    fn a_comparison_shows_the_largest_cutoff() {
        let estimate = Estimate { mean: 0.5, low: 0.25, high: 0.75, count: 9 };
        let comparison = Comparison { difference: estimate, p_value: 0.01, wins: 1, losses: 0 };
        let values: Vec<MetricValue> =
            [(Ranking::Generated, 3), (Ranking::Likelihood, 3), (Ranking::Likelihood, 10)]
                .map(|(ranking, k)| value("p", ranking, "NDCG", Some(k)).compared("random", &comparison))
                .into();
        let text = comparisons(&values.iter().collect::<Vec<_>>(), "p");
        assert!(text.contains("p, generated less random    NDCG@3 "), "{text}");
        assert!(
            text.contains("p, likelihood less random   NDCG@10   +0.500 [+0.250, +0.750]   0.0100"),
            "{text}"
        );
        assert_eq!(text.matches("likelihood").count(), 1, "{text}");
    }
}
