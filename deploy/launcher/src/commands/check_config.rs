//! `podium check-config`: reads run files as a run would, and says what their rewards pay at most and at least.

use std::path::PathBuf;
use std::process::ExitCode;

use podium_config::{Override, RunFile};

/// Says of each file, with `overrides` on top, whether a run could start from it.
pub(crate) fn check_config(files: &[PathBuf], overrides: &[Override]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match RunFile::load(file, overrides) {
            Ok(run) => {
                println!("{}: fine, run hash {}", file.display(), &run.hash()[..12]);
                if let Ok(rewards) = run.rewards() {
                    println!("    reward: {}", rewards.extremes());
                    for violation in rewards.violations() {
                        println!("    warning: the reward pays for the wrong thing: {violation}");
                    }
                }
            }
            Err(error) => {
                // Most messages name the file already.
                let (name, message) = (file.display().to_string(), error.to_string());
                let place = if message.contains(&name) { String::new() } else { format!("{name}: ") };
                eprintln!("error: {place}{message}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
