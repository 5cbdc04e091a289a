//! Shared part of `demo`, `train` and `evaluate`: from a run file and a folder to a finished run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use podium_config::{RunFile, Stage};
use podium_evaluation::results::{Evaluation, Results};
use podium_evaluation::run_tables;
use podium_files::durable;
use podium_service::{notice, output_line, shutdown};
use tokio_util::sync::CancellationToken;

use super::stages::{self, Stages};
use super::{Error, start};
use crate::conductor::{self, Outcome};
use crate::devices::Table;
use crate::progress::Progress;
use crate::report;
use crate::run_folder::{Lock, RunFolder};
use crate::services::Programs;

/// A folder in which a run can start or resume.
pub(super) struct Ready {
    programs: Programs,
    run: RunFile,
    folder: RunFolder,
    stop: CancellationToken,
    /// Excludes other launchers while held.
    _lock: Lock,
}

/// Result of preparing a folder.
pub(super) enum Preparation {
    Ready(Box<Ready>),
    /// The stages do not include GRPO and are done; the policy is in this folder.
    Made(PathBuf),
    /// The run of the folder is over.
    Finished,
    /// A signal arrived.
    Interrupted,
}

/// Trains, and then prints the results table. For a finished run it only prints the table.
pub(super) async fn run(
    run: RunFile,
    base: &Path,
    folder: &RunFolder,
    prepare_only: bool,
) -> Result<ExitCode, Error> {
    let steps = run.run.steps;
    // Before the stages, which may take hours.
    let trains = !prepare_only && run.run.stages.contains(&Stage::Grpo) && !folder.is_finished();
    let devices = trains.then(|| Table::of_run(&run)).transpose()?;
    let outcome = match prepare(run, base, folder).await? {
        Preparation::Ready(ready) => {
            let Some(devices) = devices else {
                output_line!("{}", folder.run_file().display());
                return Ok(ExitCode::SUCCESS);
            };
            ready.perform(&devices, true).await?
        }
        Preparation::Made(policy) => {
            output_line!("policy  {}", policy.display());
            return Ok(ExitCode::SUCCESS);
        }
        Preparation::Finished => {
            notice!("the run in {} is finished", folder.path().display());
            Outcome::Finished
        }
        Preparation::Interrupted => Outcome::Interrupted { step: 0 },
    };
    match outcome {
        Outcome::Finished => {
            print_table(folder)?;
            output_line!("report  {}", folder.report().display());
            print_policies(folder, steps)?;
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Interrupted { step } => {
            let out = folder.path().display();
            notice!(
                "stopped{} after step {step} of {steps}; to continue, run the same command with --out {out}",
                shutdown::received().map(|signal| format!(" by {signal}")).unwrap_or_default()
            );
            Ok(ExitCode::from(super::STOPPED))
        }
        Outcome::Drained { step, reason } => {
            let out = folder.path().display();
            notice!(
                "the run ended early, after step {step} of {steps} ({reason}); to continue, run the same command with --out {out}"
            );
            Ok(ExitCode::from(super::STOPPED))
        }
    }
}

/// Locks the folder and writes the services' inputs: the resolved run file and, if necessary, the initial policy.
pub(super) async fn prepare(mut run: RunFile, base: &Path, folder: &RunFolder) -> Result<Preparation, Error> {
    let programs = Programs::find()?;
    let lock = folder.lock()?;
    let template = copy_inputs(&mut run, base, folder)?;
    folder.require_same_run(&run)?;
    if folder.is_finished() {
        return Ok(Preparation::Finished);
    }
    if let Some(template) = template {
        durable::write(&folder.template(), &template)?;
    }
    let stop = shutdown::on_signal().map_err(Error::Signals)?;
    let stages = Stages { programs: &programs, folder, stop: &stop };
    if !stages.perform(&mut run).await? {
        return Ok(Preparation::Interrupted);
    }
    if !run.run.stages.contains(&Stage::Grpo) {
        let made = run.lora.adapter.or(run.model.path).ok_or(Error::NoStart)?;
        return Ok(Preparation::Made(made));
    }
    if run.model.path.is_none() && !start::provide(&mut run, &stages).await? {
        return Ok(Preparation::Interrupted);
    }
    folder.create_secret(&run.network)?;
    folder.store(&run)?;
    Ok(Preparation::Ready(Box::new(Ready { programs, run, folder: folder.clone(), stop, _lock: lock })))
}

impl Ready {
    /// Runs all services until the run is over or a signal arrives, and writes the report. `shows_devices`: whether to
    /// print the table of devices if there are GPUs.
    pub(super) async fn perform(self, devices: &Table, shows_devices: bool) -> Result<Outcome, Error> {
        let Self { programs, run, folder, stop, _lock } = &self;
        let mut progress = Progress::start();
        progress.say(&headline(run, folder, devices));
        if shows_devices && devices.has_gpus() {
            progress.say(&devices.to_string());
        }
        let outcome = conductor::conduct(programs, run, folder, devices, &mut progress, stop).await;
        progress.finish();
        let outcome = outcome?;
        if outcome == Outcome::Finished {
            // Policy versions are stored in policy/; the workers' copies are not needed any more.
            let _ = fs::remove_dir_all(folder.worker_cache());
        }
        report::write(folder)?;
        Ok(outcome)
    }
}

fn headline(run: &RunFile, folder: &RunFolder, devices: &Table) -> String {
    let plural = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let workers = plural(devices.workers(), "worker");
    let out = folder.path().display();
    if run.run.steps == 0 {
        return format!("{}: evaluation by {workers}, in {out}", run.run.name);
    }
    let ranks = plural(devices.ranks(), "learner rank");
    let name = &run.run.name;
    let one_process = if devices.is_one_process() { " in one process" } else { "" };
    let (steps, seed) = (run.run.steps, run.run.seed);
    format!("{name}: {steps} steps with seed {seed} by {workers} and {ranks}{one_process}, in {out}")
}

/// Services read the run file from the run's folder: paths become absolute, and a prompt template, which is returned,
/// is copied. A resumed run uses the template of its first start.
fn copy_inputs(run: &mut RunFile, base: &Path, folder: &RunFolder) -> Result<Option<Vec<u8>>, Error> {
    for path in run.paths() {
        *path = stages::absolute(path.clone())?;
    }
    let Some(file) = run.prompt.template_file() else { return Ok(None) };
    let read = |path: &Path| {
        let failed = |source| Error::Read { what: "the prompt template", path: path.to_owned(), source };
        fs::read(path).map_err(failed)
    };
    let (path, kept) = (base.join(file), folder.template());
    let text = read(&path)?;
    if folder.is_used() && kept.exists() && read(&kept)? != text {
        return Err(Error::OtherTemplate { template: path, out: folder.path().to_owned() });
    }
    let name = kept.file_name().unwrap_or_default().to_string_lossy().into_owned();
    run.prompt.template = name;
    Ok(Some(text))
}

/// Prints the folder of the last policy, and that of the best one if it differs.
fn print_policies(folder: &RunFolder, steps: u64) -> Result<(), Error> {
    let results = Results::read(folder.path())?;
    let last = results.evaluations.last();
    // A run may have ended before all its steps.
    let version = last.map_or(steps, |last| last.policy_version);
    output_line!("policy  {}", policy_line(folder, version));
    let ndcg = last.and_then(|last| last.headline_metrics().pop());
    let best = ndcg.and_then(|ndcg| results.best(&ndcg)).map(|best| best.policy_version);
    if let Some(best) = best.filter(|best| *best != version) {
        output_line!("best    {}", policy_line(folder, best));
    }
    if last.is_some_and(Evaluation::is_validation) {
        output_line!("test    {}", test_command(folder, best.unwrap_or(version)));
    }
    Ok(())
}

/// Returns the command that evaluates a version of a run, and the version that it began with, on the test users.
fn test_command(folder: &RunFolder, version: u64) -> String {
    let (run_file, policy, start) = (folder.run_file(), folder.policy(version), folder.policy(0));
    let [run_file, policy, start] = [run_file, policy, start].map(|path| path.display().to_string());
    format!("podium evaluate {run_file} --policy {policy} --against {start}")
}

/// Returns the folder of a policy version, or a note that it was removed.
fn policy_line(folder: &RunFolder, version: u64) -> String {
    let path = folder.policy(version);
    if path.is_dir() {
        return path.display().to_string();
    }
    format!("version {version} is not available: {} was removed", path.display())
}

pub(super) fn print_table(folder: &RunFolder) -> Result<(), Error> {
    let results = Results::read(folder.path())?;
    if let Some(table) = run_tables::ranking(&results) {
        output_line!("\n{table}\n");
    }
    if let Some(table) = run_tables::ranking_of_parts(&results) {
        output_line!("{table}\n");
    }
    if let Some(table) = run_tables::ranking_by_likelihood(&results) {
        output_line!("{table}\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_policy_folder_is_reported_as_removed() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(out.path());
        fs::create_dir_all(folder.policy(3)).unwrap();
        assert_eq!(policy_line(&folder, 3), folder.policy(3).display().to_string());
        let gone = policy_line(&folder, 4);
        assert!(gone.contains("version 4 is not available"), "{gone}");
    }
}
