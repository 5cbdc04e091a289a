//! `podium demo`: trains on the embedded data set from the embedded initial policy.

use std::path::PathBuf;
use std::process::ExitCode;

use podium_config::RunFile;

use super::{Error, run};
use crate::cli::RunFlags;
use crate::embedded::{RUN_FILE, RUN_FILE_NAME};
use crate::run_folder::{RunFolder, first_free};

/// Runs the demo. Without `--out` an unfinished demo is continued, and a finished one is left
/// unchanged.
pub(crate) async fn demo(flags: &RunFlags) -> Result<ExitCode, Error> {
    let run = RunFile::parse(RUN_FILE, RUN_FILE_NAME, &flags.overrides())?;
    let can_take = |folder: &RunFolder| {
        !folder.is_used() || !folder.is_finished() && folder.require_same_run(&run).is_ok()
    };
    let folder = match &flags.out {
        Some(out) => RunFolder::new(out),
        None => first_free(&PathBuf::from(format!("runs/demo-{}", run.run.seed)), can_take),
    };
    // The embedded run file contains no paths.
    run::run(run, &PathBuf::new(), &folder, flags.prepare_only).await
}
