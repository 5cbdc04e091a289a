//! Metrics of the policy between random and the best possible: one row each, on one axis, with intervals.

use std::fmt::Write as _;

use crate::html::Escaped;
use crate::scale::{self, Scale};
use podium_evaluation::results::{Estimate, Results};

const WIDTH: f64 = 560.0;
const ROW: f64 = 30.0;
/// Minimum width of the names.
const LEFT: f64 = 128.0;
/// Maximum width of the names.
const MOST_LEFT: f64 = 300.0;
/// Width of a letter of a name.
const LETTER: f64 = 7.0;
const RIGHT: f64 = 84.0;
const BOTTOM: f64 = 24.0;

/// One compared policy or baseline.
pub(crate) struct Row {
    pub(crate) who: String,
    pub(crate) mean: f64,
    pub(crate) interval: Option<(f64, f64)>,
    /// CSS classes of its dot: "quiet", "solid".
    pub(crate) dot: &'static str,
}

/// Renders the rows of one metric; empty before the first evaluation.
pub(crate) fn render(results: &Results, metric: &str) -> String {
    picture(metric, &rows(results, metric))
}

/// Renders rows on one axis from 0; empty without rows.
pub(crate) fn picture(title: &str, rows: &[Row]) -> String {
    let highs = rows.iter().map(|row| row.interval.map_or(row.mean, |(_, high)| high));
    let Some((_, most)) = scale::range(highs) else { return String::new() };
    let letters = rows.iter().map(|row| row.who.chars().count()).max().unwrap_or(0);
    let left = (letters as f64 * LETTER + 16.0).clamp(LEFT, MOST_LEFT);
    let x = Scale { values: (0.0, most.min(1.0)), pixels: (left, WIDTH - RIGHT) };
    let height = rows.len() as f64 * ROW + BOTTOM;
    let mut svg = String::new();
    let ticks = x.ticks(5);
    let step = ticks.windows(2).next().map_or(1.0, |pair| pair[1] - pair[0]);
    for tick in ticks {
        let (at, label) = (x.at(tick), scale::tick_label(tick, step));
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="4" y2="{:.1}"/><text class="tick" x="{at:.1}" y="{:.1}">{label}</text>"#,
            height - BOTTOM,
            height - 7.0,
        );
    }
    for (index, row) in rows.iter().enumerate() {
        let y = (index as f64 + 0.5) * ROW;
        let _ = write!(svg, r#"<text class="who" x="0" y="{:.1}">{}</text>"#, y + 4.0, Escaped(&row.who));
        if let Some((low, high)) = row.interval {
            let (low, high) = (x.at(low), x.at(high));
            let _ =
                write!(svg, r#"<line class="line" x1="{low:.1}" x2="{high:.1}" y1="{y:.1}" y2="{y:.1}"/>"#);
        }
        let _ = write!(
            svg,
            r#"<circle class="dot {}" cx="{:.1}" cy="{y:.1}" r="5"/><text class="what" x="{:.1}" y="{:.1}">{:.3}</text>"#,
            row.dot,
            x.at(row.mean),
            WIDTH - RIGHT + 16.0,
            y + 4.0,
            row.mean,
        );
    }
    let title = Escaped(title);
    format!(
        "<figure class=\"chart\"><figcaption><h3>{title}</h3></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title} of baselines and policies\">{svg}</svg></figure>\n"
    )
}

fn rows(results: &Results, metric: &str) -> Vec<Row> {
    let plain = |who: &str, value: Option<f64>| {
        value.map(|mean| Row { who: who.into(), mean, interval: None, dot: "quiet" })
    };
    let policy = |who: String, value: Option<Estimate>, dot| {
        value.map(|value| Row { who, mean: value.mean, interval: Some((value.low, value.high)), dot })
    };
    let (first, last) = (results.evaluations.first(), results.evaluations.last());
    let latest = last.filter(|last| first.is_none_or(|first| first.policy_version != last.policy_version));
    let ndcg = last.and_then(|last| last.headline_metrics().pop());
    let best = ndcg.and_then(|ndcg| results.best(&ndcg));
    let is_shown =
        |version: u64| [first, last].into_iter().flatten().any(|row| row.policy_version == version);
    let best = best
        .filter(|row| !is_shown(row.policy_version))
        .and_then(|row| policy(format!("best, version {}", row.policy_version), row.metric(metric), ""));
    [
        plain("random", results.baselines.random.get(metric).copied()),
        plain("most popular", results.baselines.popularity.get(metric).copied()),
        plain("item-kNN", results.baselines.item_knn.get(metric).copied()),
        first
            .and_then(|row| policy(format!("start, version {}", row.policy_version), row.metric(metric), "")),
        latest.and_then(|row| {
            policy(format!("now, version {}", row.policy_version), row.metric(metric), "solid")
        }),
        best,
        plain("best possible", results.baselines.best(metric)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
