//! `podium check-config`: reads run files as a run would, with the tokenizer of the model that they name where it is at
//! hand, and says what their rewards pay at most and at least.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use podium_config::{Override, RunFile};
use podium_runtime::{logs, notice, output_line};
use podium_tokenizer::Tokenizer;

/// Says of each file, with `overrides` on top, whether a run could start from it.
pub(crate) fn check_config(files: &[PathBuf], overrides: &[Override]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match checked(file, overrides) {
            Ok(run) => {
                output_line!("{}: fine, run hash {}", file.display(), &run.hash()[..12]);
                if let Ok(rewards) = run.rewards() {
                    output_line!("    reward: {}", rewards.extremes());
                    for violation in rewards.violations() {
                        output_line!("    warning: the reward pays for the wrong thing: {violation}");
                    }
                }
            }
            Err(error) => {
                // Most messages name the file already.
                let (name, message) = (file.display().to_string(), logs::describe(&*error));
                let place = if message.contains(&name) { String::new() } else { format!("{name}: ") };
                notice!("error: {place}{message}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// The run file, if a run could start from it.
fn checked(path: &Path, overrides: &[Override]) -> Result<RunFile, Box<dyn Error>> {
    let file = RunFile::load(path, overrides)?;
    if let Some(model) = file.model.path.as_deref().filter(|model| model.join("tokenizer.json").is_file()) {
        Tokenizer::load(model)?.check_for_training()?;
    }
    Ok(file)
}
