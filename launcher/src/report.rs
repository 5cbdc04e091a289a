//! Writes the report of a run into its folder.

use crate::run_folder::{self, RunFolder};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Folder(#[from] run_folder::Error),
    #[error(transparent)]
    Report(#[from] podium_report::Error),
}

/// Writes `report.html` from the current records of the run.
pub(crate) fn write(folder: &RunFolder) -> Result<(), Error> {
    let run = folder.stored()?.unwrap_or_default();
    Ok(podium_report::write(&run, folder.path(), folder.is_finished(), &folder.report())?)
}
