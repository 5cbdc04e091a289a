//! Line charts as inline SVG. hover.js reads the hover texts from a data attribute.

use std::fmt::Write as _;

use serde_json::json;

use crate::html::Escaped;
use crate::scale::{self, Scale};

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
    /// Renders the chart; empty without points.
    pub(crate) fn render(&self) -> String {
        let Some((x, y)) = self.scales() else { return String::new() };
        let mut svg = String::new();
        grid(&mut svg, &x, &y);
        self.band(&mut svg, &x, &y);
        for reference in &self.references {
            self::reference(&mut svg, reference.label, reference.value, &y);
        }
        self.lines(&mut svg, &x, &y);
        let hover = json!({
            "along": self.along,
            "x": self.points.iter().map(|point| x.at(point.x)).collect::<Vec<_>>(),
            "y": self.points.iter().map(|point| y.at(point.y)).collect::<Vec<_>>(),
            "text": self.points.iter().map(|point| self.hover_text(point)).collect::<Vec<_>>(),
        });
        let last = self.points.last().map(|point| scale::figure(point.y)).unwrap_or_default();
        format!(
            "<figure class=\"chart\"><figcaption><h3>{}</h3><output>{last}</output><p>{}</p></figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" data-hover=\"{}\">{svg}\
             <g class=\"pointer\" hidden><line y1=\"{TOP}\" y2=\"{:.1}\"/><circle r=\"4\"/></g></svg></figure>\n",
            Escaped(self.title),
            Escaped(self.note),
            Escaped(self.title),
            Escaped(hover),
            HEIGHT - BOTTOM,
        )
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

    fn band(&self, svg: &mut String, x: &Scale, y: &Scale) {
        let banded: Vec<(f64, f64, f64)> = self
            .points
            .iter()
            .filter_map(|point| point.band.map(|(low, high)| (point.x, low, high)))
            .collect();
        if banded.len() > 1 {
            let upper = banded.iter().map(|&(at, _, high)| (at, high));
            let lower = banded.iter().rev().map(|&(at, low, _)| (at, low));
            let _ = write!(svg, r#"<path class="band" d="{}Z"/>"#, path(upper.chain(lower), x, y));
        } else if let [(at, low, high)] = banded[..] {
            let (at, low, high) = (x.at(at), y.at(low), y.at(high));
            let _ = write!(
                svg,
                r#"<line class="whisker" x1="{at:.1}" x2="{at:.1}" y1="{low:.1}" y2="{high:.1}"/>"#
            );
        }
    }

    fn lines(&self, svg: &mut String, x: &Scale, y: &Scale) {
        let raw = || self.points.iter().map(|point| (point.x, point.y));
        let smooth = !self.marked && self.points.len() >= SMOOTH_FROM;
        if smooth {
            let points: Vec<(f64, f64)> = raw().collect();
            let smooth = running_mean(&points, points.len() / 12);
            let _ = write!(svg, r#"<path class="line faint" d="{}"/>"#, path(raw(), x, y));
            let _ = write!(svg, r#"<path class="line" d="{}"/>"#, path(smooth, x, y));
        } else {
            let _ = write!(svg, r#"<path class="line" d="{}"/>"#, path(raw(), x, y));
        }
        if self.marked || self.points.len() == 1 {
            for (at, value) in raw() {
                let _ = write!(
                    svg,
                    r#"<circle class="dot" cx="{:.1}" cy="{:.1}" r="3"/>"#,
                    x.at(at),
                    y.at(value)
                );
            }
        }
    }

    fn hover_text(&self, point: &Point) -> String {
        let band = point.band.map_or(String::new(), |(low, high)| {
            if self.marked {
                format!(" [{}, {}]", scale::figure(low), scale::figure(high))
            } else {
                format!(" ± {}", scale::figure((high - low) / 2.0))
            }
        });
        format!("{} {:.0}: {}{band}", self.along, point.x, scale::figure(point.y))
    }
}

/// Draws a dashed horizontal line with its label.
pub(crate) fn reference(svg: &mut String, label: &str, value: f64, y: &Scale) {
    let (height, right) = (y.at(value), WIDTH - RIGHT);
    let _ = write!(
        svg,
        r#"<line class="reference" x1="{LEFT}" x2="{right:.1}" y1="{height:.1}" y2="{height:.1}"/><text class="reference-label" x="{right:.1}" y="{:.1}">{label} {}</text>"#,
        height - 5.0,
        scale::figure(value),
    );
}

/// Draws the ticks of both axes.
pub(crate) fn grid(svg: &mut String, x: &Scale, y: &Scale) {
    grid_of(svg, x, y, (WIDTH, HEIGHT));
}

/// The same for a picture of another width and height.
pub(crate) fn grid_of(svg: &mut String, x: &Scale, y: &Scale, (width, height): (f64, f64)) {
    let ticks = y.ticks(6);
    let step = ticks.windows(2).next().map_or(1.0, |pair| pair[1] - pair[0]);
    for tick in ticks {
        let (at, label) = (y.at(tick), scale::tick_label(tick, step));
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="tick left" x="{:.1}" y="{:.1}">{label}</text>"#,
            width - RIGHT,
            LEFT - 8.0,
            at + 3.5,
        );
    }
    for tick in x.ticks(6).into_iter().filter(|tick| tick.fract() == 0.0) {
        let (at, below) = (x.at(tick), height - 8.0);
        let _ = write!(svg, r#"<text class="tick" x="{at:.1}" y="{below:.1}">{tick:.0}</text>"#);
    }
}

/// Returns straight lines between points.
pub(crate) fn path(points: impl Iterator<Item = (f64, f64)>, x: &Scale, y: &Scale) -> String {
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
        let html = chart(&[0.2, 0.4, 0.3]).render();
        for part in ["class=\"line\"", "class=\"band\"", "random 0.100", "step 1: 0.400 ± 0.100", "a &amp; b"]
        {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(!html.contains("NaN"));
    }

    #[test]
    fn charts_of_one_point_and_of_none_are_rendered() {
        assert!(chart(&[0.5]).render().contains("class=\"whisker\""));
        assert_eq!(chart(&[]).render(), "");
    }

    #[test]
    fn the_running_mean_uses_the_existing_neighbours() {
        let points = [(0.0, 0.0), (1.0, 3.0), (2.0, 0.0), (3.0, 3.0)];
        let means: Vec<f64> = running_mean(&points, 1).map(|(_, mean)| mean).collect();
        assert_eq!(means, [1.5, 1.0, 2.0, 1.5]);
    }
}
