//! The policy that a run on the embedded data set starts from, where its run file names none.

use std::fs;

use podium_config::RunFile;
use podium_runtime::durable;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::run_folder::RunFolder;
use crate::services::Programs;
use crate::{embedded, processes};

/// Leaves the start in the run's folder and its path in `run`. `false`: a signal came in between.
///
/// The program carries the start of the demo's own run file; for another world one is trained.
pub(super) async fn provide(
    run: &mut RunFile,
    programs: &Programs,
    folder: &RunFolder,
    stop: &CancellationToken,
) -> Result<bool, Error> {
    if run.data.dir.is_some() {
        return Err(Error::NoStart);
    }
    let start = folder.start_policy();
    if embedded::start_fits(run) {
        embedded::write_start(&start)?;
    } else if !start.exists() && !train(run, programs, folder, stop).await? {
        return Ok(false);
    }
    run.model.path = Some(std::path::absolute(&start).map_err(|source| Error::Read {
        what: "the path",
        path: start,
        source,
    })?);
    Ok(true)
}

async fn train(
    run: &RunFile,
    programs: &Programs,
    folder: &RunFolder,
    stop: &CancellationToken,
) -> Result<bool, Error> {
    folder.store(run)?;
    eprintln!("training the policy to start from: {} steps of supervised fine-tuning", run.sft.steps);
    let start = folder.start_policy();
    let partial = start.with_extension("partial");
    let config = folder.path().join("start-config.json");
    durable::write(&config, embedded::POLICY_CONFIG.as_bytes())?;
    let mut child = processes::command(&programs.learner)
        .arg("sft")
        .arg("--run-file")
        .arg(folder.run_file())
        .arg("--model-config")
        .arg(config)
        .args(["--init-seed", &run.run.seed.to_string()])
        .arg("--out")
        .arg(&partial)
        .spawn()
        .map_err(|source| processes::Error::Start { program: programs.learner.clone(), source })?;
    let status = tokio::select! {
        status = child.wait() => status.map_err(|source| processes::Error::Wait { name: "sft".into(), source })?,
        () = stop.cancelled() => {
            processes::end(&mut child).await;
            return Ok(false);
        }
    };
    if !status.success() {
        return Err(Error::Start { how: processes::describe(status) });
    }
    fs::rename(&partial, &start).map_err(|source| durable::Error::Write { path: start, source })?;
    Ok(true)
}
