//! Properties of answers besides their reward: curves of training and of held-out evaluations.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use maud::{Markup, html};
use podium_evaluation::results::Results;

use crate::series::{Series, SeriesChart};

/// Metrics with their own curve: name, title, note, and the value by chance.
const CURVES: [(&str, &str, &str, Option<f64>); 2] = [
    (
        "ranking/copied_order",
        "Copied order",
        "fraction of well-formed answers that copy the order of the prompt's first candidates",
        None,
    ),
    (
        "ranking/order_correlation",
        "Correlation with the prompt's order",
        "mean Kendall τ between the listed order and that of the candidates in the prompt",
        Some(0.0),
    ),
];
/// Number of shown defects, the most frequent first.
const DEFECTS: usize = 6;

/// Returns the section; `None` without metrics. `candidates`: number of candidates per prompt.
pub(crate) fn render(results: &Results, candidates: usize) -> Option<Markup> {
    let mut charts = Vec::new();
    let groups = ["all_hit", "all_miss", "all_malformed"].map(|name| Series {
        label: name.replace('_', " "),
        points: training(results, &format!("groups/frac_{name}")),
        marked: false,
    });
    let note = "fraction of a step's groups in which all answers rank the target first, none lists it, or none is well-formed";
    charts.extend(chart("Homogeneous groups", note, groups.into(), None));
    charts.extend(defects(results));
    for (kind, title, note) in [
        (
            "target_popularity",
            "Reward by popularity of the target",
            "mean over prompts with a target in the tail, the middle or the head of the catalogue",
        ),
        (
            "history",
            "Reward by length of the history",
            "mean over prompts with short, medium and long histories",
        ),
        ("captions", "Reward by captions", "mean over prompts in which no, some or all items have a caption"),
    ] {
        charts.extend(chart(title, note, by_value(results, &format!("groups/reward/{kind}/")), None));
    }
    for (name, title, note, chance) in CURVES {
        charts.extend(chart(title, note, both(results, name), chance.map(|chance| ("by chance", chance))));
    }
    let middle = f64::midpoint(1.0, candidates as f64);
    let note = "mean position of the first-ranked item in the prompt's candidate list";
    charts.extend(chart(
        "Position of the first-ranked item",
        note,
        both(results, "ranking/first_position"),
        Some(("by chance", middle)),
    ));
    let mut popularity = both(results, "ranking/first_popularity");
    popularity.push(Series {
        label: format!("the target, {}", results.part_name()),
        points: held_out(results, "ranking/target_popularity"),
        marked: true,
    });
    let note = "mean popularity (0 the least popular item, 1 the most) of the first-ranked item";
    charts.extend(chart("Popularity of the first-ranked item", note, popularity, None));
    if charts.is_empty() {
        return None;
    }
    Some(html! {
        h2 { "Properties of the answers" }
        p.about {
            "Shortcuts appear here before they appear in the ranking: answers that copy the prompt's order, or prefer one \
             position or popular items."
        }
        div.charts { @for chart in charts { (chart) } }
    })
}

fn chart(title: &str, note: &str, series: Vec<Series>, reference: Option<(&str, f64)>) -> Option<Markup> {
    SeriesChart { title, note, series, reference }.render()
}

fn training(results: &Results, name: &str) -> Vec<(f64, f64)> {
    results.steps.iter().filter_map(|row| Some((*row.get("step")?, *row.get(name)?))).collect()
}

fn held_out(results: &Results, name: &str) -> Vec<(f64, f64)> {
    let point =
        |row: &podium_evaluation::results::Evaluation| Some((row.policy_version as f64, row.number(name)?));
    results.evaluations.iter().filter_map(point).collect()
}

/// Series of the answers of training and of evaluations.
fn both(results: &Results, name: &str) -> Vec<Series> {
    vec![
        Series { label: "training".into(), points: training(results, name), marked: false },
        Series { label: results.part_name().into(), points: held_out(results, name), marked: true },
    ]
}

/// A series for each metric whose name begins with `prefix`, labelled by the rest of the name.
fn by_value(results: &Results, prefix: &str) -> Vec<Series> {
    let names: BTreeSet<&str> = results
        .steps
        .iter()
        .flat_map(|row| row.keys())
        .filter_map(|name| name.strip_prefix(prefix))
        .collect();
    let series = |value: &str| Series {
        label: value.replace('_', " "),
        points: training(results, &format!("{prefix}{value}")),
        marked: false,
    };
    names.into_iter().map(series).collect()
}

fn defects(results: &Results) -> Option<Markup> {
    let mut series = by_value(results, "completions/form/");
    let total = |series: &Series| series.points.iter().map(|point| point.1).sum::<f64>();
    series.retain(|series| total(series) > 0.0);
    series.sort_by(|one, other| total(other).total_cmp(&total(one)));
    let left_out = series.len().saturating_sub(DEFECTS);
    series.truncate(DEFECTS);
    let mut note = "fraction of the step's completions with each defect".to_owned();
    if left_out > 0 {
        let _ = write!(note, "; {left_out} rarer defects are not shown");
    }
    chart("Malformed answers", &note, series, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use podium_evaluation::results::Step;

    #[test]
    fn training_and_held_out_answers_are_beside_each_other() {
        let step = |step: u32| -> Step {
            let row = [
                ("step", f64::from(step)),
                ("groups/frac_all_hit", 0.1),
                ("completions/form/short_list", 0.2),
                ("completions/form/empty", 0.0),
                ("groups/reward/target_popularity/head", 0.7),
                ("ranking/copied_order", 0.4),
                ("ranking/first_position", 3.0),
            ];
            row.map(|(name, value)| (name.to_owned(), value)).into()
        };
        let row = serde_json::json!({"policy_version": 2, "users": 3, "ranking/copied_order": 0.5});
        let results = Results {
            steps: (1..=3).map(step).collect(),
            evaluations: vec![serde_json::from_value(row).unwrap()],
            ..Results::default()
        };
        let html = render(&results, 10).unwrap().into_string();
        for part in ["all hit", "short list", "head", "2: training 0.400 · held-out 0.500", "by chance 5.500"]
        {
            assert!(html.contains(part), "{part} in {html}");
        }
        for part in ["empty", "history", "Popularity of the first-ranked item"] {
            assert!(!html.contains(part), "{part} in {html}");
        }
        assert!(render(&Results::default(), 10).is_none());
    }
}
