//! Sizes of micro-batches that a device's memory requires.
//!
//! The size of micro-batches changes results by rounding alone, so that each rank decides for itself. Each decision is
//! recorded with the step that it was made in, so that steps that are repeated after a restart have the same sizes, and the
//! same bits.

use std::path::{Path, PathBuf};
use std::{fs, io};

use podium_files::durable;
use podium_grpo::Step;
use serde::{Deserialize, Serialize};

/// A reduction of the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Cut {
    /// The first step with this size.
    step: u64,
    /// Number of groups per micro-batch.
    groups: usize,
}

/// Number of groups per micro-batch, by step. A size that did not fit is not tried again.
#[derive(Debug, Clone)]
pub(crate) struct MicroBatches {
    /// The run file's size; at least one.
    initial: usize,
    cuts: Vec<Cut>,
    /// Where cuts are recorded, if anywhere.
    record: Option<PathBuf>,
}

impl MicroBatches {
    /// The run file's size, without a record.
    pub(crate) fn of(groups: u32) -> Self {
        Self { initial: (groups as usize).max(1), cuts: Vec::new(), record: None }
    }

    /// Continues the record at `path`, or starts it.
    pub(crate) fn recorded(self, path: &Path) -> Result<Self, durable::Error> {
        let failed = |source| durable::Error::Read { path: path.to_owned(), source };
        let cuts = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { cuts, record: Some(path.to_owned()), ..self })
    }

    /// Returns the size in a step.
    pub(crate) fn at(&self, step: Step) -> usize {
        let cuts = self.cuts.iter().filter(|cut| cut.step <= step.0);
        cuts.map(|cut| cut.groups).fold(self.initial, usize::min)
    }

    /// Halves the size from `step` on, after a micro-batch of this size did not fit with `at_hand` groups in the step.
    /// Returns the new size, and nothing if a single group did not fit.
    pub(crate) fn halve(&mut self, step: Step, at_hand: usize) -> Result<Option<usize>, durable::Error> {
        let groups = self.at(step).min(at_hand) / 2;
        if groups == 0 {
            return Ok(None);
        }
        self.cuts.push(Cut { step: step.0, groups });
        if let Some(path) = &self.record {
            durable::write(path, serde_json::json!(self.cuts).to_string().as_bytes())?;
        }
        Ok(Some(groups))
    }
}

#[cfg(test)]
pub(crate) mod injected {
    //! Simulates a device that holds a limited number of groups.

    use std::cell::Cell;

    thread_local! {
        static ROOM: Cell<usize> = const { Cell::new(usize::MAX) };
        static OPTIMIZER_FITS: Cell<bool> = const { Cell::new(true) };
    }

    pub(crate) fn optimizer_fits(fits: bool) {
        OPTIMIZER_FITS.set(fits);
    }

    /// Fails if the optimizer does not fit.
    pub(crate) fn take_optimizer() {
        assert!(OPTIMIZER_FITS.get(), "CUDA out of memory. Tried to allocate 2.00 GiB.");
    }

    pub(crate) fn room(groups: usize) {
        ROOM.set(groups);
    }

    /// Fails like libtorch's binding if there is no memory left.
    pub(crate) fn take(groups: usize) {
        assert!(groups <= ROOM.get(), "CUDA out of memory. Tried to allocate 2.00 GiB.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_are_halved_down_to_one_group() {
        let mut sizes = MicroBatches::of(12);
        let mut tried = vec![sizes.at(Step(3))];
        while let Some(smaller) = sizes.halve(Step(3), 9).unwrap() {
            tried.push(smaller);
        }
        assert_eq!(tried, [12, 4, 2, 1]);
        assert_eq!(MicroBatches::of(0).at(Step(0)), 1);
        assert_eq!(sizes.halve(Step(4), 0).unwrap(), None, "a rank without groups has nothing to halve");
    }

    #[test]
    fn a_record_repeats_the_sizes_of_every_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("micro-batches.json");
        let open = || MicroBatches::of(8).recorded(&path).unwrap();
        let mut sizes = open();
        sizes.halve(Step(3), 8).unwrap();
        sizes.halve(Step(5), 8).unwrap();
        let again = open();
        assert_eq!([2, 3, 4, 5, 9].map(|step| again.at(Step(step))), [8, 4, 4, 2, 2]);
        fs::write(&path, "[{").unwrap();
        assert!(MicroBatches::of(8).recorded(&path).unwrap_err().to_string().contains("micro-batches.json"));
    }
}
