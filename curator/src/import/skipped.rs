//! Rows that were left out.

use std::collections::BTreeMap;

use podium_recsys::dataset::{BadRows, Place};

use super::input::Input;
use super::rows::{Error, Problem};

/// How many places of each kind of bad row are named.
const PLACES_NAMED: usize = 5;

/// Rows that were left out, by file and kind of problem.
#[derive(Debug)]
pub(crate) struct Skipped {
    allowed: bool,
    rows: BTreeMap<String, BadRows>,
}

impl Skipped {
    /// Nothing was left out yet. Where it is not `allowed`, the first bad row is an error.
    pub(crate) const fn new(allowed: bool) -> Self {
        Self { allowed, rows: BTreeMap::new() }
    }

    /// Refuses the row at `place` of `input`, or counts it as skipped.
    pub(crate) fn bad(&mut self, input: &Input, place: Place, problem: Problem) -> Result<(), Error> {
        if !self.allowed {
            return Err(Error::Row { file: input.path.clone(), place, problem });
        }
        let rows = self.rows.entry(format!("{}: {}", input.name, problem.kind())).or_default();
        rows.count += 1;
        if rows.first.len() < PLACES_NAMED {
            rows.first.push(place);
        }
        Ok(())
    }

    /// All of them.
    pub(crate) fn into_rows(self) -> BTreeMap<String, BadRows> {
        self.rows
    }
}
