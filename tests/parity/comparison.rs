//! Differences between Podium and the reference, collected case by case.

use std::fmt::Write;

use anyhow::{Result, ensure};

/// Maximum difference of a log-probability in float32.
const LOGPROB_LIMIT: f64 = 1e-4;
/// Maximum mean difference of log-probabilities between bfloat16 arithmetic and float32.
const BFLOAT16_LIMIT: f64 = 0.02;

/// The comparisons of one test. [`Self::finish`] prints all differences before it fails.
#[derive(Debug)]
pub(crate) struct Comparison {
    title: &'static str,
    differences: Vec<Difference>,
}

#[derive(Debug)]
struct Difference {
    /// The row of the table, if it is not the case itself.
    row: Option<String>,
    case: String,
    what: &'static str,
    value: f64,
    limit: f64,
}

/// Position of a number in the table, and its case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location<'a> {
    pub(crate) row: &'a str,
    pub(crate) case: &'a str,
    pub(crate) what: &'static str,
}

impl Difference {
    fn row(&self) -> &str {
        self.row.as_deref().unwrap_or(&self.case)
    }

    /// False for a difference that is NaN.
    fn is_small(&self) -> bool {
        self.value <= self.limit
    }
}

impl Comparison {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, differences: Vec::new() }
    }

    /// Compares float32 log-probabilities: all must be within the limit.
    pub(crate) fn logprobs(
        &mut self,
        case: &str,
        what: &'static str,
        found: &[Vec<f64>],
        expected: &[Vec<f64>],
    ) {
        let largest = differences(found, expected).into_iter().reduce(larger);
        self.add(case, what, largest.unwrap_or(f64::NAN), LOGPROB_LIMIT);
    }

    /// Compares log-probabilities with bfloat16 rounding: the mean must be within the limit.
    pub(crate) fn rounded_logprobs(
        &mut self,
        case: &str,
        what: &'static str,
        found: &[Vec<f64>],
        expected: &[Vec<f64>],
    ) {
        self.add(case, what, mean_difference(found, expected), BFLOAT16_LIMIT);
    }

    /// Compares token ids: all must be equal. The difference is the number of unequal ones.
    pub(crate) fn tokens(
        &mut self,
        case: &str,
        what: &'static str,
        found: &[Vec<u32>],
        expected: &[Vec<u32>],
    ) {
        let unequal = pairs(found, expected).iter().filter(|(found, expected)| found != expected).count();
        self.add(case, what, unequal as f64, 0.0);
    }

    /// Compares a number that may differ by a fraction of itself, or of `floor` if that is larger. The table combines
    /// the cases of a row.
    pub(crate) fn relative(
        &mut self,
        location: Location<'_>,
        found: f64,
        expected: f64,
        floor: f64,
        limit: f64,
    ) {
        self.distance(location, (found - expected).abs() / expected.abs().max(floor), limit);
    }

    /// Adds a difference measured elsewhere.
    pub(crate) fn distance(&mut self, location: Location<'_>, value: f64, limit: f64) {
        let Location { row, case, what } = location;
        let (row, case) = (Some(row.to_owned()), case.to_owned());
        self.differences.push(Difference { row, case, what, value, limit });
    }

    fn add(&mut self, case: &str, what: &'static str, value: f64, limit: f64) {
        self.differences.push(Difference { row: None, case: case.to_owned(), what, value, limit });
    }

    /// Prints a row for each case, or for those that share one, and the largest difference of each column. Fails if a
    /// difference exceeds its limit.
    pub(crate) fn finish(self) -> Result<()> {
        eprintln!("\n{}", self.table());
        let large = self.differences.iter().filter(|difference| !difference.is_small());
        let failures: Vec<_> = large
            .map(|Difference { case, what, value, limit, .. }| {
                format!("{case}, {what}: {value:.1e}, limit {limit:.0e}")
            })
            .collect();
        ensure!(!self.differences.is_empty(), "{}: nothing was compared", self.title);
        ensure!(failures.is_empty(), "{}: differences\n{}", self.title, failures.join("\n"));
        Ok(())
    }

    fn table(&self) -> String {
        let mut cases: Vec<&str> = Vec::new();
        let mut columns: Vec<&str> = Vec::new();
        for one in &self.differences {
            if !columns.contains(&one.what) {
                columns.push(one.what);
            }
            if !cases.contains(&one.row()) {
                cases.push(one.row());
            }
        }
        let width = cases.iter().map(|case| case.len()).chain([self.title.len()]).max().unwrap_or(0);
        let mut text = format!("{:width$}", self.title);
        let line = |text: &mut String, name: &str, cell: &dyn Fn(&str) -> Option<f64>| {
            _ = write!(text, "\n{name:width$}");
            for column in &columns {
                let value = cell(column).map_or_else(String::new, |value| format!("{value:.1e}"));
                _ = write!(text, "  {value:>0$}", column.len().max(7));
            }
        };
        for column in &columns {
            _ = write!(text, "  {column:>7}");
        }
        for case in cases {
            let here = |one: &&Difference| one.row() == case;
            line(&mut text, case, &|column| {
                let values = self.differences.iter().filter(here).filter(|one| one.what == column);
                values.map(|one| one.value).reduce(larger)
            });
        }
        line(&mut text, "largest", &|column| {
            self.differences.iter().filter(|one| one.what == column).map(|one| one.value).reduce(larger)
        });
        text
    }
}

/// Returns the mean difference between log-probabilities.
pub(crate) fn mean_difference(found: &[Vec<f64>], expected: &[Vec<f64>]) -> f64 {
    let differences = differences(found, expected);
    differences.iter().sum::<f64>() / differences.len() as f64
}

fn differences(found: &[Vec<f64>], expected: &[Vec<f64>]) -> Vec<f64> {
    let pairs = pairs(found, expected).into_iter();
    pairs
        .map(|pair| match pair {
            (Some(found), Some(expected)) => (found - expected).abs(),
            // A missing counterpart exceeds every limit.
            _ => f64::NAN,
        })
        .collect()
}

/// Returns the larger number; NaN counts as the largest.
fn larger(one: f64, other: f64) -> f64 {
    if one.is_nan() || one >= other { one } else { other }
}

/// Pairs of values; `None` if one side has no counterpart.
fn pairs<T: Copy>(found: &[Vec<T>], expected: &[Vec<T>]) -> Vec<(Option<T>, Option<T>)> {
    let rows = 0..found.len().max(expected.len());
    let pairs = rows.flat_map(|row| {
        let (found, expected) = (found.get(row), expected.get(row));
        let length = |values: Option<&Vec<T>>| values.map_or(0, Vec::len);
        let value = |values: Option<&Vec<T>>, index: usize| values?.get(index).copied();
        let indices = 0..length(found).max(length(expected));
        indices.map(move |index| (value(found, index), value(expected, index)))
    });
    pairs.collect()
}
