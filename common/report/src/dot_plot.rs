//! Dot plots: a metric of several policies and baselines, one row each, on one axis, with intervals.

use maud::{Markup, html};
use podium_evaluation::results::{Estimate, Results};

use crate::scale::{self, Scale, pixels};

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
    /// CSS class of its dot: "quiet", "solid", or none.
    pub(crate) dot: Option<&'static str>,
}

/// Renders rows on one axis from 0; `None` without rows.
pub(crate) fn render(title: &str, rows: &[Row]) -> Option<Markup> {
    let highs = rows.iter().map(|row| row.interval.map_or(row.mean, |(_, high)| high));
    let (_, most) = scale::range(highs)?;
    let letters = rows.iter().map(|row| row.who.chars().count()).max().unwrap_or(0);
    let left = (letters as f64 * LETTER + 16.0).clamp(LEFT, MOST_LEFT);
    let x = Scale { values: (0.0, most.min(1.0)), pixels: (left, WIDTH - RIGHT) };
    let height = rows.len() as f64 * ROW + BOTTOM;
    Some(html! {
        figure.chart {
            figcaption { h3 { (title) } }
            svg viewBox=(format!("0 0 {WIDTH} {height:.0}")) role="img"
                aria-label={ (title) " of baselines and policies" } {
                (grid(&x, height))
                @for (index, row) in rows.iter().enumerate() {
                    (draw(row, (index as f64 + 0.5) * ROW, &x))
                }
            }
        }
    })
}

fn grid(x: &Scale, height: f64) -> Markup {
    html! {
        @for (at, label) in x.labelled_ticks(5) {
            line.grid x1=(pixels(at)) x2=(pixels(at)) y1="4" y2=(pixels(height - BOTTOM)) {}
            text.tick x=(pixels(at)) y=(pixels(height - 7.0)) { (label) }
        }
    }
}

/// Draws a row at the height `y`.
fn draw(row: &Row, y: f64, x: &Scale) -> Markup {
    let base = pixels(y + 4.0);
    html! {
        text.who x="0" y=(base) { (row.who) }
        @if let Some((low, high)) = row.interval {
            line.line x1=(pixels(x.at(low))) x2=(pixels(x.at(high))) y1=(pixels(y)) y2=(pixels(y)) {}
        }
        circle class={ "dot" @if let Some(dot) = row.dot { " " (dot) } } cx=(pixels(x.at(row.mean))) cy=(pixels(y)) r="5" {}
        text.what x=(pixels(WIDTH - RIGHT + 16.0)) y=(base) { (format!("{:.3}", row.mean)) }
    }
}

/// Returns a run's rows of one metric, from random to the best possible; empty before the first evaluation and without
/// baselines.
pub(crate) fn rows_of_run(results: &Results, metric: &str) -> Vec<Row> {
    let baseline = |who: &str, value: Option<f64>| {
        value.map(|mean| Row { who: who.into(), mean, interval: None, dot: Some("quiet") })
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
        .and_then(|row| policy(format!("best, version {}", row.policy_version), row.metric(metric), None));
    [
        baseline("random", results.baselines.random.get(metric).copied()),
        baseline("most popular", results.baselines.popularity.get(metric).copied()),
        baseline("item-kNN", results.baselines.item_knn.get(metric).copied()),
        first.and_then(|row| {
            policy(format!("start, version {}", row.policy_version), row.metric(metric), None)
        }),
        latest.and_then(|row| {
            policy(format!("now, version {}", row.policy_version), row.metric(metric), Some("solid"))
        }),
        best,
        baseline("best possible", results.baselines.best(metric)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
