//! `podium report`: regenerates report.html.

use podium_service::output_line;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Error;
use crate::run_folder::RunFolder;

/// Writes the report of the run in `out` from its current records.
pub(crate) fn report(out: PathBuf) -> Result<ExitCode, Error> {
    let folder = RunFolder::new(out);
    if !folder.is_used() {
        return Err(Error::NoRun { out: folder.path().to_owned() });
    }
    crate::report::write(&folder)?;
    output_line!("{}", folder.report().display());
    Ok(ExitCode::SUCCESS)
}
