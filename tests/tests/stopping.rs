//! A run whose processes shut down resumes from the exact step, also on other hosts.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use podium_tests::launched::{Launched, started};
use podium_tests::{Process, Run, rows};

/// Exit code of a process that shut down before the end of the run.
const STOPPED: i32 = podium_service::shutdown::STOPPED as i32;

const STEPS: u64 = 8;

/// No checkpoint is due before the end: the run resumes from the one written during the shutdown.
const SETTINGS: [&str; 5] = [
    "run.steps=8",
    "run.seed=11",
    "rollout.prompts_per_step=24",
    "evaluation.users=32",
    "learner.checkpoint_every_steps=100",
];

fn ranks(run: &Run, name: &str) -> Result<Vec<Process>> {
    (0..2).map(|rank| run.learner(&format!("{name}-{rank}"), rank, 2)).collect()
}

/// Returns the step that the newest checkpoint continues with.
fn newest_checkpoint(run: &Run) -> Result<u64> {
    let folder = run.folder().join("learner/rank-0/checkpoints");
    let names = fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<_>>>()?;
    names.iter().filter_map(|name| name.parse().ok()).max().context("there is no checkpoint")
}

fn committed(run: &Run) -> Result<u64> {
    Ok(rows(&run.out().join("metrics.jsonl"))?.len() as u64)
}

#[tokio::test]
async fn a_stopped_run_resumes_at_the_same_step() -> Result<()> {
    let undisturbed = Run::embedded(&SETTINGS)?;
    let mut coordinator = undisturbed.coordinator("coordinator")?;
    let (mut learners, mut worker) = (ranks(&undisturbed, "learner")?, undisturbed.worker("worker")?);
    for process in learners.iter_mut().chain([&mut worker, &mut coordinator]) {
        process.wait_for_success()?;
    }

    // All processes except one worker are stopped at once, as by a batch system that reclaims the hosts.
    let run = Run::embedded(&SETTINGS)?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut learners = ranks(&run, "learner")?;
    let (mut worker, mut steady) = (run.worker("worker")?, run.worker("steady")?);
    run.wait_until("a few steps", |status| status.step >= 2).await?;
    for (process, signal) in [
        (&learners[0], Signal::SIGUSR1),
        (&learners[1], Signal::SIGTERM),
        (&worker, Signal::SIGINT),
        (&coordinator, Signal::SIGTERM),
    ] {
        process.signal(signal)?;
    }
    worker.wait_for_success()?;
    for process in learners.iter_mut().chain([&mut coordinator]) {
        process.wait_for_code(STOPPED)?;
    }
    let (kept, told) = (newest_checkpoint(&run)?, committed(&run)?);
    ensure!((2..STEPS).contains(&told), "the run was not stopped half-way but after {told} steps");
    ensure!(kept == told || kept == told + 1, "step {told} was committed, and the checkpoint is of {kept}");

    // The coordinator restarts at another address, and then the warning and the end of an allocation follow.
    let elsewhere = ["--listen", "127.0.0.2:0"];
    let mut coordinator = run.coordinator_with("coordinator again", &elsewhere)?;
    let mut learners = ranks(&run, "learner again")?;
    run.wait_until("the next step", |status| status.step > kept).await?;
    for signal in [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGTERM] {
        learners[0].signal(signal)?;
    }
    learners[0].wait_for_code(STOPPED)?;
    ensure!(newest_checkpoint(&run)? > kept, "rank 0 shut down without a checkpoint");
    // The other rank remains and waits for it.
    learners[0] = run.learner("learner 0 at last", 0, 2)?;
    for process in learners.iter_mut().chain([&mut steady, &mut coordinator]) {
        process.wait_for_success()?;
    }
    ensure!(committed(&run)? == STEPS, "each step is reported once");
    let (found, expected) = (run.weights_hash(STEPS)?, undisturbed.weights_hash(STEPS)?);
    ensure!(found == expected, "the weights differ from those of an undisturbed run");
    Ok(())
}

#[tokio::test]
async fn podium_restarts_workers_that_receive_sigterm() -> Result<()> {
    let run = Launched::new(&["run.steps=12", "launch.workers=2", "launch.learner_device=cpu"])?;
    let mut podium = run.start("podium")?;
    run.reach(1).await?;
    let workers = started(&podium, "podium-rollout-worker", 2, &[])?;
    for worker in &workers {
        kill(*worker, Signal::SIGTERM)?;
    }
    started(&podium, "podium-rollout-worker", 2, &workers)?;
    podium.wait_for_success()?;
    let output = podium.output();
    for worker in ["worker-1", "worker-2"] {
        ensure!(output.contains(&format!("{worker} died (exit code 75) and is restarted")), "{output}");
    }
    Ok(())
}

#[tokio::test]
async fn podium_names_a_worker_that_is_shut_down_repeatedly() -> Result<()> {
    let run = Launched::new(&["run.steps=100000", "launch.workers=1", "launch.learner_device=cpu"])?;
    let mut podium = run.start("podium")?;
    let mut earlier = Vec::new();
    // A process that has no handler of SIGTERM yet dies of the signal, which counts too.
    for _ in 0..6 {
        let worker = started(&podium, "podium-rollout-worker", 1, &earlier)?[0];
        kill(worker, Signal::SIGTERM)?;
        earlier.push(worker);
    }
    let output = podium.wait_for_failure()?;
    ensure!(output.contains("worker-1 died 6 times within a minute"), "{output}");
    Ok(())
}
