//! The rise of a watched metric over the window.

/// The rise of a metric over the window, with its 99 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// The rise.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}
