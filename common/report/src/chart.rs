//! Line charts as inline SVG. hover.js reads the hover texts from a data attribute.

use std::fmt::Write as _;

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::scale::{self, Scale, format_value, pixels};

pub(crate) const WIDTH: f64 = 560.0;
pub(crate) const HEIGHT: f64 = 230.0;
pub(crate) const LEFT: f64 = 46.0;
pub(crate) const RIGHT: f64 = 14.0;
pub(crate) const TOP: f64 = 12.0;
pub(crate) const BOTTOM: f64 = 26.0;
/// From this number of points on, single points are drawn faint and their running mean strong.
pub(crate) const SMOOTH_FROM: usize = 24;

/// A measured value, with a band if known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) band: Option<(f64, f64)>,
}

/// A horizontal reference line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reference {
    pub(crate) label: &'static str,
    pub(crate) value: f64,
}

/// One quantity over the run.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    /// One-line description of the quantity and its band.
    pub(crate) note: &'a str,
    /// Quantity of the horizontal axis: "step", "policy version".
    pub(crate) along: &'a str,
    pub(crate) points: Vec<Point>,
    pub(crate) references: Vec<Reference>,
    /// Whether to mark all points and smooth none, for a few significant points.
    pub(crate) marked: bool,
}

impl Chart<'_> {
    /// Renders the chart; `None` without points.
    pub(crate) fn render(&self) -> Option<Markup> {
        let (x, y) = self.scales()?;
        let hover = json!({
            "along": self.along,
            "x": self.points.iter().map(|point| x.at(point.x)).collect::<Vec<_>>(),
            "y": self.points.iter().map(|point| y.at(point.y)).collect::<Vec<_>>(),
            "text": self.points.iter().map(|point| self.hover_text(point)).collect::<Vec<_>>(),
        });
        let content = html! {
            (grid(&x, &y, (WIDTH, HEIGHT)))
            (self.band(&x, &y))
            @for line in &self.references { (reference(line.label, line.value, &y)) }
            (self.lines(&x, &y))
        };
        Some(html! {
            figure.chart {
                figcaption {
                    h3 { (self.title) }
                    output { @if let Some(last) = self.points.last() { (format_value(last.y)) } }
                    p { (self.note) }
                }
                (drawing(self.title, (WIDTH, HEIGHT), &hover, &content))
            }
        })
    }

    fn scales(&self) -> Option<(Scale, Scale)> {
        let xs = self.points.iter().map(|point| point.x);
        let (first, last) = (xs.clone().reduce(f64::min)?, xs.reduce(f64::max)?);
        let bands = self.points.iter().filter_map(|point| point.band).flat_map(|(low, high)| [low, high]);
        let values = self.points.iter().map(|point| point.y).chain(bands);
        let values = scale::range(values.chain(self.references.iter().map(|reference| reference.value)))?;
        let last = if last > first { last } else { first + 1.0 };
        Some((
            Scale { values: (first, last), pixels: (LEFT + 4.0, WIDTH - RIGHT - 4.0) },
            Scale { values, pixels: (HEIGHT - BOTTOM, TOP) },
        ))
    }

    fn band(&self, x: &Scale, y: &Scale) -> Markup {
        let banded: Vec<(f64, f64, f64)> = self
            .points
            .iter()
            .filter_map(|point| point.band.map(|(low, high)| (point.x, low, high)))
            .collect();
        let upper = banded.iter().map(|&(at, _, high)| (at, high));
        let lower = banded.iter().rev().map(|&(at, low, _)| (at, low));
        html! {
            @if banded.len() > 1 {
                path.band d={ (path_data(upper.chain(lower), x, y)) "Z" } {}
            } @else if let [(at, low, high)] = banded[..] {
                line.whisker x1=(pixels(x.at(at))) x2=(pixels(x.at(at))) y1=(pixels(y.at(low))) y2=(pixels(y.at(high))) {}
            }
        }
    }

    fn lines(&self, x: &Scale, y: &Scale) -> Markup {
        let points: Vec<(f64, f64)> = self.points.iter().map(|point| (point.x, point.y)).collect();
        let smooth = !self.marked && points.len() >= SMOOTH_FROM;
        html! {
            path.line.faint[smooth] d=(path_data(points.iter().copied(), x, y)) {}
            @if smooth {
                path.line d=(path_data(running_mean(&points, points.len() / 12), x, y)) {}
            }
            @if self.marked || points.len() == 1 {
                @for &(at, value) in &points {
                    circle.dot cx=(pixels(x.at(at))) cy=(pixels(y.at(value))) r="3" {}
                }
            }
        }
    }

    fn hover_text(&self, point: &Point) -> String {
        let band = point.band.map_or(String::new(), |(low, high)| {
            if self.marked {
                format!(" [{}, {}]", format_value(low), format_value(high))
            } else {
                format!(" ± {}", format_value((high - low) / 2.0))
            }
        });
        format!("{} {:.0}: {}{band}", self.along, point.x, format_value(point.y))
    }
}

/// Returns the picture of a chart, of a width and a height, with a pointer for the values of `hover`.
pub(crate) fn drawing(label: &str, (width, height): (f64, f64), hover: &Value, content: &Markup) -> Markup {
    html! {
        svg viewBox={ "0 0 " (width) " " (height) } role="img" aria-label=(label) data-hover=(hover) {
            (content)
            g.pointer hidden {
                line y1=(TOP) y2=(pixels(height - BOTTOM)) {}
                circle r="4" {}
            }
        }
    }
}

/// Draws a dashed horizontal line with its label.
pub(crate) fn reference(label: &str, value: f64, y: &Scale) -> Markup {
    let (height, right) = (y.at(value), pixels(WIDTH - RIGHT));
    html! {
        line.reference x1=(LEFT) x2=(right) y1=(pixels(height)) y2=(pixels(height)) {}
        text.reference-label x=(right) y=(pixels(height - 5.0)) { (label) " " (format_value(value)) }
    }
}

/// Draws the ticks of both axes of a picture of this width and height.
pub(crate) fn grid(x: &Scale, y: &Scale, (width, height): (f64, f64)) -> Markup {
    html! {
        @for (at, label) in y.labelled_ticks(6) {
            line.grid x1=(LEFT) x2=(pixels(width - RIGHT)) y1=(pixels(at)) y2=(pixels(at)) {}
            text.tick.left x=(pixels(LEFT - 8.0)) y=(pixels(at + 3.5)) { (label) }
        }
        @for tick in x.ticks(6).into_iter().filter(|tick| tick.fract() == 0.0) {
            text.tick x=(pixels(x.at(tick))) y=(pixels(height - 8.0)) { (format!("{tick:.0}")) }
        }
    }
}

/// Returns the path of straight lines between points.
pub(crate) fn path_data(points: impl Iterator<Item = (f64, f64)>, x: &Scale, y: &Scale) -> String {
    let mut path = String::new();
    for (at, value) in points {
        let _ = write!(path, "{}{:.1} {:.1}", if path.is_empty() { 'M' } else { 'L' }, x.at(at), y.at(value));
    }
    path
}

/// Returns each point's mean with up to `window` neighbours on both sides.
pub(crate) fn running_mean(points: &[(f64, f64)], window: usize) -> impl Iterator<Item = (f64, f64)> {
    points.iter().enumerate().map(move |(index, point)| {
        let near = &points[index.saturating_sub(window)..points.len().min(index + window + 1)];
        (point.0, near.iter().map(|point| point.1).sum::<f64>() / near.len() as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> Chart<'static> {
        let points = values.iter().enumerate().map(|(index, &y)| Point {
            x: index as f64,
            y,
            band: Some((y - 0.1, y + 0.1)),
        });
        Chart {
            title: "Reward",
            note: "a & b",
            along: "step",
            points: points.collect(),
            references: vec![Reference { label: "random", value: 0.1 }],
            marked: false,
        }
    }

    #[test]
    fn a_chart_has_line_band_reference_and_hover() {
        let html = chart(&[0.2, 0.4, 0.3]).render().unwrap().into_string();
        for part in ["class=\"line\"", "class=\"band\"", "random 0.100", "step 1: 0.400 ± 0.100", "a &amp; b"]
        {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(!html.contains("NaN"));
    }

    #[test]
    fn charts_of_one_point_and_of_none_are_rendered() {
        assert!(chart(&[0.5]).render().unwrap().into_string().contains("class=\"whisker\""));
        assert!(chart(&[]).render().is_none());
    }

    #[test]
    fn the_running_mean_uses_the_existing_neighbours() {
        let points = [(0.0, 0.0), (1.0, 3.0), (2.0, 0.0), (3.0, 3.0)];
        let means: Vec<f64> = running_mean(&points, 1).map(|(_, mean)| mean).collect();
        assert_eq!(means, [1.5, 1.0, 2.0, 1.5]);
    }
}
