//! `podium train`: trains according to a run file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use podium_config::RunFile;

use super::{Error, run};
use crate::cli::RunFlags;
use crate::run_folder::RunFolder;

/// Trains, or resumes an earlier start of the same run in the same folder.
pub(crate) async fn train(run_file: &Path, flags: &RunFlags) -> Result<ExitCode, Error> {
    let run = RunFile::load(run_file, &flags.overrides())?;
    let out = flags.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&run.run.name));
    let base = run_file.parent().unwrap_or(Path::new(""));
    run::run(run, base, &RunFolder::new(out), flags.prepare_only).await
}
