//! `podium check-config`: reads run files as a run would.

use std::path::PathBuf;
use std::process::ExitCode;

use podium_config::RunFile;

/// Says of each file whether a run could start from it.
pub(crate) fn check_config(files: &[PathBuf]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match RunFile::load(file, &[]) {
            Ok(run) => println!("{}: fine, run hash {}", file.display(), &run.hash()[..12]),
            Err(error) => {
                eprintln!("error: {}: {error}", file.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
