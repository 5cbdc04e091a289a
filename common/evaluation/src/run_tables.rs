//! The tables at the end of a run: start, end, random, most popular, item-kNN, best possible.

use std::fmt::Write as _;

use comfy_table::{LineStyle, Table, TableStyle};

use crate::results::{Estimate, Results};

/// Returns the table of the first and the latest evaluation; `None` without evaluations.
pub fn ranking(results: &Results) -> Option<String> {
    table(results, &results.evaluations.last()?.headline_metrics())
}

/// Returns the same for users with a warm target and for those with a cold one; `None` if all are of one kind.
pub fn ranking_of_parts(results: &Results) -> Option<String> {
    let last = results.evaluations.last()?;
    let (warm, cold) = last.users_of_parts()?;
    let table = table(results, &last.metrics_of_parts())?;
    Some(format!(
        "{table}\nwarm: the {warm} users whose target occurs in training interactions; cold: the {cold} others, whose target \
         is known by its caption alone"
    ))
}

/// Returns the same for the ranking by likelihood; `None` without one.
pub fn ranking_by_likelihood(results: &Results) -> Option<String> {
    let metrics = results.evaluations.last()?.likelihood_metrics();
    if metrics.is_empty() { None } else { table(results, &metrics) }
}

fn table(results: &Results, metrics: &[String]) -> Option<String> {
    let (start, end) = (results.evaluations.first()?, results.evaluations.last()?);
    let row = |name: &str, cell: &dyn Fn(&str) -> Option<String>| -> Vec<String> {
        let cells = metrics.iter().map(|metric| cell(metric).unwrap_or_else(|| "–".into()));
        std::iter::once(name.to_owned()).chain(cells).collect()
    };
    let mut rows = vec![row("", &|name| Some(name.to_owned()))];
    let interval = |estimate: Option<Estimate>| estimate.map(interval);
    if end.policy_version == start.policy_version {
        rows.push(row(&format!("version {}", end.policy_version), &|name| interval(end.metric(name))));
    } else {
        rows.push(row("start", &|name| interval(start.metric(name))));
        // Every table names the same version.
        let ndcg = end.headline_metrics().pop();
        let best = ndcg.and_then(|ndcg| results.best(&ndcg)).map(|best| best.policy_version);
        let is_best = if best == Some(end.policy_version) { ", best" } else { "" };
        let name = format!("end (version {}{is_best})", end.policy_version);
        rows.push(row(&name, &|name| interval(end.metric(name))));
        rows.push(row("change, paired", &|name| end.change(name).map(signed_interval)));
        if let Some(best) = results.evaluations.iter().find(|one| Some(one.policy_version) == best)
            && is_best.is_empty()
        {
            let name = format!("best (version {})", best.policy_version);
            rows.push(row(&name, &|name| interval(best.metric(name))));
        }
    }
    let baselines = &results.baselines;
    rows.push(row("random", &|name| baselines.random.get(name).copied().map(format_value)));
    if !baselines.popularity.is_empty() {
        rows.push(row("most popular", &|name| baselines.popularity.get(name).copied().map(format_value)));
    }
    if !baselines.item_knn.is_empty() {
        rows.push(row("item-kNN", &|name| baselines.item_knn.get(name).copied().map(format_value)));
    }
    if baselines.best_possible.is_some() {
        rows.push(row("best possible", &|name| baselines.best(name).map(format_value)));
    }
    let mut text = laid_out(&rows);
    let _ = write!(text, "{} {} users, 95 % intervals", end.users, end.part_name());
    Some(text)
}

fn format_value(value: f64) -> String {
    format!("{value:.3}")
}

/// "0.412 [0.371, 0.452]"
pub fn interval(estimate: Estimate) -> String {
    format!("{:.3} [{:.3}, {:.3}]", estimate.mean, estimate.low, estimate.high)
}

/// "+0.130 [+0.094, +0.168]"
pub fn signed_interval(estimate: Estimate) -> String {
    format!("{:+.3} [{:+.3}, {:+.3}]", estimate.mean, estimate.low, estimate.high)
}

/// Lays out rows, the first of which is the header: columns as wide as their widest cell, a rule under the header and
/// around.
pub fn laid_out(rows: &[Vec<String>]) -> String {
    const RULE: LineStyle = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table.load_style(TableStyle::new().top_border(RULE).header_separator(RULE).bottom_border(RULE));
    if let Some((header, rows)) = rows.split_first() {
        table.set_header(header).add_rows(rows);
    }
    let last = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Baselines;

    fn evaluation(version: u64, value: f64) -> crate::results::Evaluation {
        let estimate = |mean: f64| serde_json::json!({"mean": mean, "low": mean - 0.04, "high": mean + 0.04});
        serde_json::from_value(serde_json::json!({
            "policy_version": version, "part": "validation", "users": 600, "HR@1": estimate(value), "HR@3": estimate(value + 0.2),
            "change_from_start": if version == 0 { serde_json::Value::Null } else {
                serde_json::json!({"HR@1": estimate(value - 0.3)})
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_table_shows_start_end_random_and_best() {
        let results = Results {
            steps: Vec::new(),
            evaluations: vec![evaluation(0, 0.3), evaluation(60, 0.45)],
            baselines: Baselines {
                random: [("HR@1".into(), 0.1)].into(),
                popularity: [("HR@1".into(), 0.12)].into(),
                item_knn: [("HR@1".into(), 0.31)].into(),
                best_possible: Some([("HR@1".into(), 0.5612)].into()),
                reward_range: None,
            },
        };
        let expected = "\
───────────────────────────────────────────────────────────────────────
                         HR@1                      HR@3
───────────────────────────────────────────────────────────────────────
start                    0.300 [0.260, 0.340]      0.500 [0.460, 0.540]
end (version 60, best)   0.450 [0.410, 0.490]      0.650 [0.610, 0.690]
change, paired           +0.150 [+0.110, +0.190]   –
random                   0.100                     –
most popular             0.120                     –
item-kNN                 0.310                     –
best possible            0.561                     –
───────────────────────────────────────────────────────────────────────
600 validation users, 95 % intervals";
        assert_eq!(ranking(&results).unwrap(), expected);
    }

    #[test]
    fn the_best_policy_has_a_row_if_it_is_not_the_last() {
        let evaluations =
            vec![evaluation(0, 0.3), evaluation(20, 0.5), evaluation(40, 0.5), evaluation(60, 0.4)];
        let table = ranking(&Results { evaluations, ..Results::default() }).unwrap();
        assert!(table.contains("end (version 60)    0.400"), "{table}");
        assert!(table.contains("best (version 20)   0.500"), "{table}");
    }

    #[test]
    fn warm_and_cold_targets_have_their_own_table() {
        let estimate = |mean: f64| serde_json::json!({"mean": mean, "low": mean - 0.1, "high": mean + 0.1});
        let row = serde_json::json!({"policy_version": 0, "users": 600, "HR@1": estimate(0.5), "warm/users": 250,
            "cold/users": 350, "warm/HR@1": estimate(0.6), "cold/HR@1": estimate(0.4)});
        let results = Results {
            steps: Vec::new(),
            evaluations: vec![serde_json::from_value(row).unwrap()],
            baselines: Baselines {
                item_knn: [("HR@1".into(), 0.3), ("warm/HR@1".into(), 0.7), ("cold/HR@1".into(), 0.0)].into(),
                ..Baselines::default()
            },
        };
        let table = ranking_of_parts(&results).unwrap();
        assert!(table.contains("version 0   0.600 [0.500, 0.700]   0.400 [0.300, 0.500]"), "{table}");
        assert!(table.contains("item-kNN    0.700                  0.000"), "{table}");
        assert!(table.contains("the 250 users") && table.contains("the 350 others"), "{table}");
        assert!(!ranking(&results).unwrap().contains("warm"));
        let row = |version, all, cold| {
            let row = serde_json::json!({"policy_version": version, "users": 600, "HR@1": estimate(all),
                "warm/users": 250, "cold/users": 350, "warm/HR@1": estimate(all), "cold/HR@1": estimate(cold)});
            serde_json::from_value(row).unwrap()
        };
        let evaluations = vec![row(0, 0.1, 0.1), row(20, 0.5, 0.3), row(40, 0.4, 0.6)];
        let table = ranking_of_parts(&Results { evaluations, ..Results::default() }).unwrap();
        assert!(
            table.contains("best (version 20)"),
            "the best of all users, not of those with a cold target: {table}"
        );
        let results = Results { evaluations: vec![evaluation(0, 0.3)], ..Results::default() };
        assert!(ranking_of_parts(&results).is_none());
    }

    #[test]
    fn a_ranking_by_likelihood_has_its_own_table() {
        let estimate = serde_json::json!({"mean": 0.5, "low": 0.4, "high": 0.6});
        let scored = serde_json::json!({"policy_version": 0, "users": 9, "HR@1": estimate, "HR@3": estimate,
            "likelihood/HR@1": estimate, "likelihood/HR@5": estimate});
        let scored = serde_json::from_value(scored).unwrap();
        let results = Results { evaluations: vec![scored], ..Results::default() };
        let table = ranking_by_likelihood(&results).unwrap();
        assert!(table.contains("likelihood/HR@1") && !table.contains("HR@3") && !table.contains("HR@5"));
        assert!(!ranking(&results).unwrap().contains("likelihood"));
        let results = Results { evaluations: vec![evaluation(0, 0.3)], ..Results::default() };
        assert!(ranking_by_likelihood(&results).is_none());
    }

    #[test]
    fn one_policy_has_one_row() {
        let results = Results { evaluations: vec![evaluation(0, 0.3)], ..Results::default() };
        let table = ranking(&results).unwrap();
        assert!(table.contains("version 0") && !table.contains("change"));
        assert!(ranking(&Results::default()).is_none());
    }
}
