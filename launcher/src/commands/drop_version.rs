//! `podium drop-version`: drops a policy version of a stopped run.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use super::Error;
use crate::run_folder::RunFolder;
use crate::services::Programs;

/// Drops `version` of the run in `out` with the coordinator's program, which owns the run's
/// database.
pub(crate) fn drop_version(out: PathBuf, version: u64) -> Result<ExitCode, Error> {
    let folder = RunFolder::new(out);
    if !folder.is_used() {
        return Err(Error::NoRun { out: folder.path().to_owned() });
    }
    let programs = Programs::find()?;
    // Prevents a concurrent start of the run.
    let _lock = folder.lock()?;
    let mut command = Command::new(&programs.coordinator);
    command.arg("drop-version").arg("--out").arg(folder.path()).args(["--version", &version.to_string()]);
    let failed = |source| Error::Start { program: programs.coordinator.clone(), source };
    let status = command.status().map_err(failed)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
