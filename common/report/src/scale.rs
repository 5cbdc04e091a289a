//! Axes: positions, ticks and labels of values.

/// A linear axis from values to pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    /// The values at both ends.
    pub(crate) values: (f64, f64),
    /// The pixels at both ends; decreasing for a vertical axis.
    pub(crate) pixels: (f64, f64),
}

impl Scale {
    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = (value - self.values.0) / (self.values.1 - self.values.0);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    /// Returns about `wanted` round values along the axis.
    pub(crate) fn ticks(&self, wanted: usize) -> Vec<f64> {
        let step = round_step((self.values.1 - self.values.0) / wanted.max(1) as f64);
        let first = (self.values.0 / step).ceil() as i64;
        let last = (self.values.1 / step + 1e-9).floor() as i64;
        (first..=last).map(|multiple| multiple as f64 * step).collect()
    }

    /// Returns the pixel and the label of each of about `wanted` round values.
    pub(crate) fn labelled_ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        let ticks = self.ticks(wanted);
        let step = ticks.windows(2).next().map_or(1.0, |pair| pair[1] - pair[0]);
        ticks.into_iter().map(|tick| (self.at(tick), tick_label(tick, step))).collect()
    }
}

/// Formats a coordinate of a drawing.
pub(crate) fn pixels(coordinate: f64) -> String {
    format!("{coordinate:.1}")
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&round| round >= step * (1.0 - 1e-9))
        .unwrap_or(step)
}

/// Returns the ends of an axis for all `values` with a margin; `None` without values.
pub(crate) fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let ends = values.filter(|value| value.is_finite()).fold(None, |ends: Option<(f64, f64)>, value| {
        Some(ends.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    });
    let (low, high) = ends?;
    let room = if high > low { (high - low) * 0.08 } else { high.abs().max(1e-6) * 0.5 };
    // A non-negative quantity is not shown below zero.
    Some((if low >= 0.0 { (low - room).max(0.0) } else { low - room }, high + room))
}

/// Formats a tick with enough decimals to distinguish neighbours.
fn tick_label(value: f64, step: f64) -> String {
    let decimals = if step >= 1.0 { 0 } else { (-step.log10()).ceil() as usize };
    if value != 0.0 && value.abs() < 1e-4 { format!("{value:.0e}") } else { format!("{value:.decimals$}") }
}

/// Formats a value with about three significant digits.
pub(crate) fn format_value(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && magnitude < 1e-3 {
        format!("{value:.1e}")
    } else if magnitude < 10.0 {
        format!("{value:.3}")
    } else {
        format!("{value:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |low, high| Scale { values: (low, high), pixels: (0.0, 1.0) }.ticks(5);
        assert_eq!(ticks(0.0, 60.0), [0.0, 20.0, 40.0, 60.0]);
        let close =
            |left: Vec<f64>, right: &[f64]| left.iter().zip(right).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(ticks(0.07, 0.58), &[0.2, 0.4]));
        assert!(close(ticks(0.0, 0.0021), &[0.0, 0.0005, 0.001, 0.0015, 0.002]));
    }

    #[test]
    fn ranges_have_room_and_respect_zero() {
        assert_eq!(range([f64::NAN].into_iter()), None);
        assert_eq!(range([0.0, 1.0].into_iter()), Some((0.0, 1.08)));
        let (low, high) = range([2.0].into_iter()).unwrap();
        assert!(low < 2.0 && high > 2.0);
        let (low, high) = range([0.0].into_iter()).unwrap();
        assert!(low == 0.0 && high > 0.0);
        assert!(range([-1.0, 1.0].into_iter()).unwrap().0 < -1.0);
    }

    #[test]
    fn values_map_onto_pixels() {
        let scale = Scale { values: (0.0, 2.0), pixels: (100.0, 0.0) };
        assert!((scale.at(0.5) - 75.0).abs() < 1e-12);
        assert_eq!(
            (tick_label(0.4, 0.2), tick_label(40.0, 20.0), tick_label(0.0005, 0.0005)),
            ("0.4".into(), "40".into(), "0.0005".into())
        );
        assert_eq!(
            (format_value(0.51234), format_value(41.26), format_value(0.000_123)),
            ("0.512".into(), "41.3".into(), "1.2e-4".into())
        );
    }
}
