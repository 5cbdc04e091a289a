//! Rows that were skipped.

use std::collections::BTreeMap;

use podium_recsys::dataset::{BadRows, Location};

use super::input::Input;
use super::rows::{Error, Problem};

/// Number of positions that are listed for each kind of bad row.
const PLACES_NAMED: usize = 5;

/// Skipped rows by file and kind of problem.
#[derive(Debug)]
pub(crate) struct Skipped {
    allowed: bool,
    gaps: bool,
    rows: BTreeMap<String, BadRows>,
}

impl Skipped {
    /// Creates an empty record. Unless bad rows are `allowed`, the first one is an error. If the format has `gaps`, rows
    /// at its gaps ([`Problem::is_gap`]) are allowed in any case.
    pub(crate) const fn new(allowed: bool, gaps: bool) -> Self {
        Self { allowed, gaps, rows: BTreeMap::new() }
    }

    /// Counts the row at `location` of `input` as skipped, or returns an error if bad rows are not
    /// allowed.
    pub(crate) fn bad(&mut self, input: &Input, location: Location, problem: Problem) -> Result<(), Error> {
        if !(self.allowed || self.gaps && problem.is_gap()) {
            return Err(Error::Row { file: input.path.clone(), location, problem });
        }
        let rows = self.rows.entry(format!("{}: {}", input.name, problem.kind())).or_default();
        rows.count += 1;
        if rows.first.len() < PLACES_NAMED {
            rows.first.push(location);
        }
        Ok(())
    }

    /// Returns all skipped rows.
    pub(crate) fn into_rows(self) -> BTreeMap<String, BadRows> {
        self.rows
    }
}
