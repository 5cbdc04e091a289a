//! In synchronous mode the final weights are a function of configuration, data and seed alone.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use podium_tests::{Process, Run, path_text, rows, weights_hash};

/// `podium demo --steps 8 --seed 5` through the launcher; returns the hash of the final weights.
fn demo(folder: &Path, workers: u32) -> Result<String> {
    let out = folder.join(format!("workers-{workers}"));
    let workers = workers.to_string();
    let arguments = ["demo", "--steps", "8", "--seed", "5", "--workers", &workers, "--out", path_text(&out)];
    Process::spawn(&format!("demo-{workers}"), "podium", &arguments, folder)?.wait_for_success()?;
    weights_hash(&out, 8)
}

#[tokio::test]
async fn the_number_and_deaths_of_workers_change_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let alone = demo(folder.path(), 1)?;
    ensure!(alone == demo(folder.path(), 3)?, "three workers end with other weights than one");

    // The same run started by hand: one of two workers is killed half-way, another joins.
    let as_the_demo = ["rollout.constrain_answers=true", "run.portable=true"];
    let run = Run::embedded(&[&["run.steps=8", "run.seed=5"], &as_the_demo[..]].concat())?;
    let mut coordinator = run.coordinator("coordinator")?;
    let (mut learner, mut steady, mut victim) =
        (run.learner("learner", 0, 1)?, run.worker("steady")?, run.worker("victim")?);
    run.wait_until("half of the steps and a lease to lose", |status| {
        status.step >= 3 && status.workers.iter().filter(|worker| worker.leases > 0).count() == 2
    })
    .await?;
    victim.signal(Signal::SIGKILL)?;
    victim.wait()?;
    let mut late = run.worker("late")?;
    for process in [&mut learner, &mut steady, &mut late, &mut coordinator] {
        process.wait_for_success()?;
    }
    ensure!(run.weights_hash(8)? == alone, "a killed and a late worker changed the weights");
    ensure!(rows(&run.out().join("metrics.jsonl"))?.len() == 8, "one row of metrics per step");
    Ok(())
}

/// Two small steps by the launcher, under further environment variables; returns the hash of the final weights.
fn two_steps(folder: &Path, portable: bool, variables: &[(&str, &str)]) -> Result<String> {
    let out = folder.join(format!("portable-{portable}-{}", variables.len()));
    let portable = format!("run.portable={portable}");
    let mut command = Process::prepare("podium", &["demo", "--steps", "2", "--out", path_text(&out)]);
    for setting in [&portable, "rollout.prompts_per_step=8", "evaluation.users=8"] {
        command.args(["--set", setting]);
    }
    for name in ["MKL_CBWR", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    Process::start(&format!("{portable}-{}", variables.len()), command, folder)?.wait_for_success()?;
    weights_hash(&out, 2)
}

/// Other code paths of the libraries simulate other processors.
#[test]
fn portable_runs_leave_the_same_weights_whatever_code_the_processor_would_choose() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let other =
        [("ATEN_CPU_CAPABILITY", "default"), ("MKL_CBWR", "COMPATIBLE"), ("ONEDNN_MAX_CPU_ISA", "SSE41")];
    let weights = |portable, variables: &[_]| two_steps(folder.path(), portable, variables);
    ensure!(
        weights(false, &[])? != weights(false, &other)?,
        "the other code computes the same bits: nothing is tested"
    );
    ensure!(
        weights(true, &[])? == weights(true, &other)?,
        "run.portable leaves the code paths to the processor"
    );
    Ok(())
}

#[tokio::test]
async fn deaths_of_coordinator_and_learner_change_nothing() -> Result<()> {
    let settings = [
        "run.steps=6",
        "run.seed=9",
        "rollout.prompts_per_step=16",
        "evaluation.users=64",
        "learner.checkpoint_every_steps=2",
    ];
    let undisturbed = Run::embedded(&settings)?;
    let mut processes = vec![undisturbed.coordinator("coordinator")?];
    processes.extend([undisturbed.learner("learner", 0, 1)?, undisturbed.worker("worker")?]);
    for mut process in processes.into_iter().rev() {
        process.wait_for_success()?;
    }

    let disturbed = Run::embedded(&[&settings[..], &["run.record_groups=true"]].concat())?;
    let coordinator = disturbed.coordinator("coordinator")?;
    let (learner, mut worker) = (disturbed.learner("learner", 0, 1)?, disturbed.worker("worker")?);
    disturbed.wait_until("a step past a checkpoint", |status| status.step >= 3).await?;
    learner.signal(Signal::SIGKILL)?;
    coordinator.signal(Signal::SIGKILL)?;
    drop((learner, coordinator));
    let mut coordinator = disturbed.coordinator("coordinator again")?;
    let mut learner = disturbed.learner("learner again", 0, 1)?;
    for process in [&mut worker, &mut learner, &mut coordinator] {
        process.wait_for_success()?;
    }
    for version in [0, 6] {
        ensure!(
            disturbed.weights_hash(version)? == undisturbed.weights_hash(version)?,
            "version {version} differs"
        );
    }
    let steps: Vec<u64> =
        rows(&disturbed.out().join("metrics.jsonl"))?.iter().filter_map(|row| row["step"].as_u64()).collect();
    ensure!(steps == [1, 2, 3, 4, 5, 6], "steps in metrics.jsonl are {steps:?}");
    check_recording(&disturbed)
}

/// Checks that the recorded groups are those of every step, once each, and reproduce the weights.
fn check_recording(run: &Run) -> Result<()> {
    let groups = run.out().join("groups.jsonl");
    let names = rows(&groups)?.into_iter().map(|row| (row["step"].as_u64(), row["index"].as_u64()));
    let expected = (0..6).flat_map(|step| (0..16).map(move |index| (Some(step), Some(index))));
    ensure!(names.eq(expected), "groups are missing, duplicated or out of order");
    let (model, run_file) = (run.out().join("policy/0"), run.out().join("run.toml"));
    let out = run.folder().join("replayed");
    let paths = ["--model", path_text(&model), "--groups", path_text(&groups), "--out", path_text(&out)];
    let settings = ["--groups-per-step", "16", "--run-file", path_text(&run_file), "--device", "cpu"];
    let arguments = [&["replay"][..], &paths, &settings].concat();
    Process::spawn("replay", "podium-learner", &arguments, run.folder())?.wait_for_success()?;
    let [replayed, trained] = [out.join("model"), run.out().join("policy/6")]
        .map(|folder| fs::read(folder.join("model.safetensors")));
    ensure!(replayed? == trained?, "the replay ends with other weights than the run");
    ensure!(rows(&out.join("metrics.jsonl"))?.len() == 6, "one row of metrics per optimizer step");
    Ok(())
}
