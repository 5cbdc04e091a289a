//! End of a command that uses an endpoint: output, list of failures, and exit code.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use podium_files::durable;
use podium_service::{logs, output_line};
use serde_json::{Value, json};

use super::{Failure, Session, lock};

/// Exit code of an interrupted command.
const INTERRUPTED: u8 = 130;
/// Number of failures that are shown; the file contains all of them.
const SHOWN: usize = 20;

/// Failed items with reasons.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    succeeded: usize,
    failures: Vec<(String, Failure)>,
}

impl Outcome {
    /// Splits results into successes and failures; `name` returns the name of an item.
    pub(crate) fn sort<I, T>(
        &mut self,
        items: &[I],
        results: Vec<Result<T, Failure>>,
        name: impl Fn(&I) -> String,
    ) -> Vec<Option<T>> {
        let sorted: Vec<Option<T>> = items
            .iter()
            .zip(results)
            .map(|(item, result)| result.map_err(|failure| self.failures.push((name(item), failure))).ok())
            .collect();
        self.succeeded += sorted.iter().flatten().count();
        sorted
    }

    /// Ends the command: `write` writes the successes to `output` and returns whether there was anything to write. It
    /// is not called after an interruption, when the output would be partial, or without successes, so that the
    /// existing output is preserved. Failures are listed on standard output and in a file beside `output`.
    pub(crate) fn finish(
        self,
        session: &Session,
        output: &Path,
        write: impl FnOnce() -> anyhow::Result<bool>,
    ) -> anyhow::Result<ExitCode> {
        output_line!("{}", lock(&session.tally));
        let mut failures = self.failures;
        if let Some(position) = failures.iter().position(|(_, failure)| failure.is_final_for_all()) {
            let (name, failure) = failures.swap_remove(position);
            return Err(failure).with_context(|| format!("stopped at {name}; all replies are stored"));
        }
        let total = failures.len();
        failures.retain(|(_, failure)| !matches!(failure, Failure::Interrupted));
        let interrupted = total - failures.len();
        for (name, failure) in failures.iter().take(SHOWN) {
            output_line!("failed: {name}: {}", logs::describe(failure));
        }
        if failures.len() > SHOWN {
            output_line!("failed: {} more", failures.len() - SHOWN);
        }
        if interrupted > 0 {
            output_line!(
                "interrupted with {interrupted} items left; all replies are stored: run the command again to continue"
            );
            return Ok(ExitCode::from(INTERRUPTED));
        }
        let all_failed = self.succeeded == 0 && !failures.is_empty();
        if !all_failed && write()? {
            output_line!("wrote {}", output.display());
        } else {
            output_line!("no changes: {} was not rewritten", output.display());
        }
        list(output, &failures)?;
        Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Writes the failures beside `output`, or removes the list of an earlier run.
fn list(output: &Path, failures: &[(String, Failure)]) -> anyhow::Result<()> {
    let path = output.with_extension("failures.json");
    if failures.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        };
    }
    let rows: Vec<Value> = failures
        .iter()
        .map(|(name, failure)| json!({ "item": name, "reason": logs::describe(failure) }))
        .collect();
    durable::write(&path, format!("{:#}\n", Value::Array(rows)).as_bytes())?;
    output_line!("{} failed; all are listed in {}", failures.len(), path.display());
    Ok(())
}
