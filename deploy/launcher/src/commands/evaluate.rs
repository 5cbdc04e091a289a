//! `podium evaluate`: a run without steps, in which the policy is evaluated as the start of a training would be.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use podium_config::{RunFile, Stage};
use podium_runtime::durable;
use serde_json::{Value, json};

use super::run::Preparation;
use super::{Error, run};
use crate::cli::RunFlags;
use crate::conductor::Outcome;
use crate::results;
use crate::run_folder::{RunFolder, first_free};

/// Writes evaluation.json and prints the table.
pub(crate) async fn evaluate(run_file: &Path, policy: &Path, flags: &RunFlags) -> Result<ExitCode, Error> {
    let mut run = RunFile::load(run_file, &flags.overrides())?;
    run.run.steps = 0;
    run.run.stages = vec![Stage::Grpo];
    place(policy, &mut run);
    let folder = match &flags.out {
        Some(out) => RunFolder::new(out),
        None => {
            first_free(&PathBuf::from(format!("runs/evaluate-{}", run.run.name)), |folder| !folder.is_used())
        }
    };
    if folder.is_used() {
        return Err(Error::Used { out: folder.path().to_owned() });
    }
    let hash = run.hash();
    let base = run_file.parent().unwrap_or(Path::new(""));
    let Preparation::Ready(ready) = run::prepare(run, base, &folder).await? else {
        return Ok(ExitCode::from(super::INTERRUPTED));
    };
    if flags.prepare_only {
        println!("{}", folder.run_file().display());
        return Ok(ExitCode::SUCCESS);
    }
    if let Outcome::Interrupted { .. } = ready.perform().await? {
        return Ok(ExitCode::from(super::INTERRUPTED));
    }
    let path = folder.path().join("evaluation.json");
    durable::write(&path, format!("{:#}\n", summary(policy, &hash, &folder)?).as_bytes())?;
    run::print_table(&folder)?;
    println!("evaluation  {}", path.display());
    println!("report      {}", folder.report().display());
    Ok(ExitCode::SUCCESS)
}

/// Makes the run start from a policy's folder: a model, an adapter of the run file's model, or both.
fn place(policy: &Path, run: &mut RunFile) {
    let is_adapter = policy.join("adapter_config.json").is_file();
    run.lora.adapter = is_adapter.then(|| policy.to_owned());
    if !is_adapter || policy.join("config.json").is_file() {
        run.model.path = Some(policy.to_owned());
    }
}

fn summary(policy: &Path, hash: &str, folder: &RunFolder) -> Result<Value, Error> {
    let rows: Vec<Value> = results::rows(&folder.path().join("evaluations.jsonl"))?;
    let baselines: Option<Value> = results::document(&folder.path().join("baselines.json"))?;
    Ok(json!({
        "policy": policy,
        "run_hash": hash,
        "evaluation": rows.last(),
        "baselines": baselines,
    }))
}
