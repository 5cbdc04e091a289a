//! Several quantities over the run in one chart, distinguished by colour, with a legend.

use maud::{Markup, html};
use serde_json::json;

use crate::chart::{self, BOTTOM, HEIGHT, LEFT, RIGHT, SMOOTH_FROM, TOP, WIDTH};
use crate::scale::{self, Scale, format_value, pixels};

/// One quantity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) label: String,
    /// Position and value.
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether to mark all points and smooth none, for a few significant points.
    pub(crate) marked: bool,
}

/// Quantities of one kind over the same positions.
#[derive(Debug)]
pub(crate) struct SeriesChart<'a> {
    pub(crate) title: &'a str,
    pub(crate) note: &'a str,
    pub(crate) series: Vec<Series>,
    /// A horizontal reference line.
    pub(crate) reference: Option<(&'a str, f64)>,
}

/// Colours in style.css.
const COLORS: usize = 6;

impl SeriesChart<'_> {
    /// Renders the chart; `None` without points.
    pub(crate) fn render(&self) -> Option<Markup> {
        let shown: Vec<&Series> = self.series.iter().filter(|series| !series.points.is_empty()).collect();
        let points = || shown.iter().flat_map(|series| &series.points);
        let values = points().map(|point| point.1).chain(self.reference.map(|(_, value)| value));
        let (values, first) = (scale::range(values)?, points().map(|point| point.0).reduce(f64::min)?);
        let last = points().map(|point| point.0).fold(first + 1.0, f64::max);
        let x = Scale { values: (first, last), pixels: (LEFT + 4.0, WIDTH - RIGHT - 4.0) };
        let y = Scale { values, pixels: (HEIGHT - BOTTOM, TOP) };
        let colored = || (0..).map(|index| index % COLORS + 1).zip(&shown);
        let content = html! {
            (chart::grid(&x, &y, (WIDTH, HEIGHT)))
            @if let Some((label, value)) = self.reference { (chart::reference(label, value, &y)) }
            @for (color, series) in colored() { (draw(series, color, &x, &y)) }
        };
        Some(html! {
            figure.chart {
                figcaption {
                    h3 { (self.title) }
                    output {}
                    p { (self.note) }
                }
                (chart::drawing(self.title, (WIDTH, HEIGHT), &hover(&shown, &x, &y), &content))
                div.legend {
                    @for (color, series) in colored() {
                        span.{ "s" (color) } { i {} (series.label) }
                    }
                }
            }
        })
    }
}

fn draw(series: &Series, color: usize, x: &Scale, y: &Scale) -> Markup {
    let points = &series.points;
    let path = if !series.marked && points.len() >= SMOOTH_FROM {
        chart::path_data(chart::running_mean(points, points.len() / 12), x, y)
    } else {
        chart::path_data(points.iter().copied(), x, y)
    };
    html! {
        path.line.{ "s" (color) } d=(path) {}
        @if series.marked || points.len() == 1 {
            @for &(at, value) in points {
                circle.dot.{ "s" (color) } cx=(pixels(x.at(at))) cy=(pixels(y.at(value))) r="3" {}
            }
        }
    }
}

/// Hover texts: at each position of the longest series the values of all series that have one there.
fn hover(series: &[&Series], x: &Scale, y: &Scale) -> serde_json::Value {
    let Some(longest) = series.iter().rev().max_by_key(|series| series.points.len()) else {
        return serde_json::Value::Null;
    };
    let text = |at: f64| {
        let here = |series: &&Series| {
            let point = series.points.iter().find(|point| (point.0 - at).abs() < 0.5)?;
            Some(format!("{} {}", series.label, format_value(point.1)))
        };
        let values: Vec<String> = series.iter().filter_map(here).collect();
        format!("{at:.0}: {}", values.join(" · "))
    };
    json!({
        "x": longest.points.iter().map(|point| x.at(point.0)).collect::<Vec<_>>(),
        "y": longest.points.iter().map(|point| y.at(point.1)).collect::<Vec<_>>(),
        "text": longest.points.iter().map(|point| text(point.0)).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_share_axes_and_have_a_legend() {
        let series = |label: &str, points: &[(f64, f64)], marked| Series {
            label: label.into(),
            points: points.to_vec(),
            marked,
        };
        let chart = SeriesChart {
            title: "Copied order",
            note: "share",
            series: vec![
                series("training", &[(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)], false),
                series("nothing", &[], false),
                series("held-out <b>", &[(2.0, 0.5)], true),
            ],
            reference: Some(("by chance", 0.0)),
        };
        let html = chart.render().unwrap().into_string();
        for part in
            ["line s1", "dot s2", "held-out &lt;b&gt;", "by chance 0.000", "2: training 0.200 · held-out"]
        {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(!html.contains("nothing") && !html.contains("NaN"));
        assert!(SeriesChart { series: vec![], ..chart }.render().is_none());
    }
}
