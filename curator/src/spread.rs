//! Summaries of distributions for display.

use std::fmt;

use serde::Serialize;

/// Summary of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) least: usize,
    pub(crate) median: usize,
    pub(crate) mean: f64,
    /// The 90 % quantile.
    pub(crate) p90: usize,
    pub(crate) most: usize,
}

impl Spread {
    /// Summarises `numbers`; zeros for an empty list.
    pub(crate) fn of(mut numbers: Vec<usize>) -> Self {
        numbers.sort_unstable();
        let at = |share: f64| {
            let index = (share * numbers.len() as f64).ceil() as usize;
            numbers.get(index.saturating_sub(1)).copied().unwrap_or(0)
        };
        let mean = numbers.iter().sum::<usize>() as f64 / numbers.len().max(1) as f64;
        Self { least: at(0.0), median: at(0.5), mean, p90: at(0.9), most: at(1.0) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, median, mean, p90, most } = self;
        write!(f, "{least} … {most}   median {median}, mean {mean:.1}, 90 % up to {p90}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_consists_of_existing_numbers() {
        let spread = Spread::of((1..=10).collect());
        assert_eq!(spread, Spread { least: 1, median: 5, mean: 5.5, p90: 9, most: 10 });
        assert_eq!(Spread::of(vec![7]), Spread { least: 7, median: 7, mean: 7.0, p90: 7, most: 7 });
        assert_eq!(Spread::of(vec![]).most, 0);
    }
}
