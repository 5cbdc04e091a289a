//! A run that trains an adapter: versions consist of the adapter, crashes change nothing, and the result can be
//! merged.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use podium_tests::{Process, Run, path_text};

const SETTINGS: [&str; 8] = [
    "run.steps=5",
    "run.seed=3",
    "lora.rank=4",
    "lora.dropout=0.1",
    "rollout.prompts_per_step=16",
    "evaluation.users=64",
    "learner.checkpoint_every_steps=2",
    "learner.recompute_layers=true",
];

fn files(run: &Run, version: u64) -> Result<Vec<String>> {
    let entries = fs::read_dir(run.out().join("policy").join(version.to_string()))?;
    let mut names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

#[tokio::test]
async fn adapters_are_trained_through_crashes_and_merged() -> Result<()> {
    let undisturbed = Run::embedded(&SETTINGS)?;
    let mut coordinator = undisturbed.coordinator("coordinator")?;
    let (mut learner, mut worker) = (undisturbed.learner("learner", 0, 1)?, undisturbed.worker("worker")?);
    for process in [&mut learner, &mut worker, &mut coordinator] {
        process.wait_for_success()?;
    }
    ensure!(files(&undisturbed, 5)? == ["adapter_config.json", "adapter_model.safetensors"]);
    ensure!(undisturbed.weights_hash(4)? != undisturbed.weights_hash(5)?, "the last step changed nothing");

    let disturbed = Run::embedded(&SETTINGS)?;
    let mut coordinator = disturbed.coordinator("coordinator")?;
    let (learner, mut worker) = (disturbed.learner("learner", 0, 1)?, disturbed.worker("worker")?);
    disturbed.wait_until("a step past a checkpoint", |status| status.step >= 3).await?;
    learner.signal(Signal::SIGKILL)?;
    drop(learner);
    // A worker that joins now needs the model of version 0 and the adapter of a later one.
    let mut late = disturbed.worker("late")?;
    let mut learner = disturbed.learner("learner again", 0, 1)?;
    for process in [&mut learner, &mut worker, &mut late, &mut coordinator] {
        process.wait_for_success()?;
    }
    ensure!(
        disturbed.weights_hash(5)? == undisturbed.weights_hash(5)?,
        "the adapter of the killed learner differs"
    );

    let policy = |version: u64| undisturbed.out().join("policy").join(version.to_string());
    let merged = undisturbed.folder().join("merged");
    let (model, adapter) = (policy(0), policy(5));
    let arguments = ["merge", "--model", path_text(&model), "--adapter", path_text(&adapter)];
    let arguments = [&arguments[..], &["--out", path_text(&merged)]].concat();
    let merge = || Process::spawn("merge", "podium-learner", &arguments, undisturbed.folder());
    merge()?.wait_for_success()?;
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        ensure!(merged.join(name).is_file(), "the merged folder has no {name}");
    }
    let refused = merge()?.wait_for_failure()?;
    ensure!(refused.contains("merged"), "a folder with a model was overwritten: {refused}");
    Ok(())
}
