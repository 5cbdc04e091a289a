//! Faulty policy versions: published by a foreign process, removed or damaged on disk. The run recomputes them, and
//! synchronous runs end with the bits of an undisturbed one.

mod stray;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_proto::v1::RunStatus;
use podium_tests::scrape::Scrape;
use podium_tests::{PATIENCE, Process, Run, path_text, rows};
use serde_json::Value;
use stray::Stray;
use tokio::sync::OnceCell;

const STEPS: u64 = 7;

const SETTINGS: [&str; 6] = [
    "run.steps=7",
    "run.seed=5",
    "rollout.prompts_per_step=16",
    "evaluation.users=48",
    "evaluation.prompts_per_lease=2",
    "evaluation.every_steps=2",
];

fn prepared(changes: &[&str]) -> Result<Run> {
    Run::embedded(&[&SETTINGS[..], changes].concat())
}

/// Results of an undisturbed run: the hash of its last weights, and its evaluations.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    weights: String,
    evaluations: Vec<Value>,
}

impl Left {
    fn of(run: &Run) -> Result<Self> {
        let evaluations = rows(&run.out().join("evaluations.jsonl"))?;
        Ok(Self { weights: run.weights_hash(STEPS)?, evaluations })
    }
}

fn undisturbed(ranks: u32) -> Result<Left> {
    let run = prepared(&[])?;
    let mut processes = vec![run.coordinator("coordinator")?];
    processes.push(run.worker("worker")?);
    for rank in 0..ranks {
        processes.push(run.learner(&format!("learner-{rank}"), rank, ranks)?);
    }
    for process in processes.iter_mut().rev() {
        process.wait_for_success()?;
    }
    Left::of(&run)
}

/// Returns the results of an undisturbed run with one rank.
async fn expected() -> Result<&'static Left> {
    static LEFT: OnceCell<Left> = OnceCell::const_new();
    LEFT.get_or_try_init(|| async { undisturbed(1) }).await
}

fn finish<'a>(processes: impl IntoIterator<Item = &'a mut Process>) -> Result<()> {
    processes.into_iter().try_for_each(Process::wait_for_success)
}

async fn committed(run: &Run) -> Result<u64> {
    Ok(run.status().await?.step)
}

/// Returns the step that the newest checkpoint continues with.
fn newest_checkpoint(run: &Run) -> Result<Option<u64>> {
    let folder = run.folder().join("learner/rank-0/checkpoints");
    let names = fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<_>>>()?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).max())
}

/// Runs a learner until it shuts down with an unpublished, uncommitted step, of which only the checkpoint exists.
async fn learner_with_an_unpublished_step(run: &Run, after: u64) -> Result<u64> {
    loop {
        // A learner that has just committed a step takes the next one as soon as it is sampled.
        let after = after.max(committed(run).await? + 1);
        let mut command = run.learner_command(0, 1, "cpu")?;
        command.args(["--leave-within-seconds", "0"]);
        let mut learner = Process::start("learner", command, run.folder())?;
        let full = run.wait_until("a full step", |status| {
            status.step >= after && status.groups_ready == status.groups_wanted
        });
        full.await?;
        learner.signal(Signal::SIGTERM)?;
        learner.wait()?;
        let step = committed(run).await?;
        ensure!(step < STEPS, "the run was over before the learner shut down");
        if newest_checkpoint(run)? == Some(step + 1) {
            return Ok(step);
        }
    }
}

/// Removes the content of the folder of policies.
fn remove_policies(run: &Run) -> Result<()> {
    for entry in fs::read_dir(run.out().join("policy"))? {
        let path = entry?.path();
        // A folder that is being replaced may be gone already.
        let _ = fs::remove_dir_all(path);
    }
    Ok(())
}

fn kill(mut process: Process) -> Result<()> {
    process.signal(Signal::SIGKILL)?;
    process.wait().map(drop)
}

#[tokio::test]
async fn a_stray_publisher_is_superseded_by_the_learner() -> Result<()> {
    let run = prepared(&["learner.checkpoint_every_steps=1"])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let (mut learner, mut worker) = (run.learner("learner", 0, 1)?, run.worker("worker")?);
    run.wait_until("two steps", |status| status.step >= 2).await?;
    learner.signal(Signal::SIGSTOP)?;
    let step = committed(&run).await?;
    Stray::join(&run).await?.publish(step + 1).await?;
    learner.signal(Signal::SIGCONT)?;
    run.wait_until("the next step", |status| status.step > step).await?;
    let superseded =
        Scrape::of(&run.metrics_address()?)?.sum("podium_coordinator_policies_superseded_total", &[]);
    ensure!(superseded > 0.0, "the learner continued with the stray's version {}", step + 1);
    finish([&mut learner, &mut worker, &mut coordinator])?;
    ensure!(Left::of(&run)? == *expected().await?, "the results differ from those of an undisturbed run");
    Ok(())
}

#[tokio::test]
async fn groups_of_a_stray_version_are_sampled_again() -> Result<()> {
    let run = prepared(&["rollout.max_policy_lag=1", "learner.checkpoint_every_steps=1"])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let (mut learner, mut worker) = (run.learner("learner", 0, 1)?, run.worker("worker")?);
    run.wait_until("two steps", |status| status.step >= 2).await?;
    learner.signal(Signal::SIGSTOP)?;
    let step = committed(&run).await?;
    Stray::join(&run).await?.publish(step + 1).await?;
    let (start, metrics) = (Instant::now(), run.metrics_address()?);
    while Scrape::of(&metrics)?.sum("podium_coordinator_groups_waiting", &[]) < 32.0 {
        ensure!(start.elapsed() < PATIENCE, "the step ahead is not sampled");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    learner.signal(Signal::SIGCONT)?;
    run.wait_until("the next step", |status| status.step > step).await?;
    let dropped = Scrape::of(&metrics)?.sum("podium_coordinator_groups_dropped_total", &[]);
    ensure!(dropped > 0.0, "groups of the stray's version were retained");
    finish([&mut learner, &mut worker, &mut coordinator])?;
    for row in rows(&run.out().join("metrics.jsonl"))? {
        let gap = row["sampling/sampling_logp_difference/max"].as_f64().context("no gap")?;
        ensure!(
            gap < 1.0,
            "step {} was trained on another policy's groups: the gap is {gap} nats",
            row["step"]
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_checkpoint_takes_precedence_over_a_foreign_version() -> Result<()> {
    let run = prepared(&[])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut worker = run.worker("worker")?;
    let step = learner_with_an_unpublished_step(&run, 2).await?;
    Stray::join(&run).await?.publish(step + 1).await?;
    let mut learner = run.learner("learner again", 0, 1)?;
    finish([&mut learner, &mut worker, &mut coordinator])?;
    ensure!(Left::of(&run)? == *expected().await?, "the results differ from those of an undisturbed run");
    Ok(())
}

#[tokio::test]
async fn a_committed_foreign_version_is_refused_by_name_and_can_be_dropped() -> Result<()> {
    let run = prepared(&[])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut worker = run.worker("worker")?;
    let step = learner_with_an_unpublished_step(&run, 1).await?;
    let stray = Stray::join(&run).await?;
    stray.publish(step + 1).await?;
    stray.commit(step).await?;
    run.wait_until("groups of the stray's version", |status| status.groups_ready > 0).await?;

    let foreign = step + 1;
    let refused = run.learner("learner refused", 0, 1)?.wait_for_failure()?;
    let told = format!("drop-version --out RUN --version {foreign}");
    ensure!(refused.contains(&told), "the learner's error names no remedy:\n{refused}");
    let (out, version) = (run.out(), foreign.to_string());
    let arguments = ["drop-version", "--out", path_text(&out), "--version", &version];
    let drop_version = |name: &str| Process::spawn(name, "podium", &arguments, run.folder());
    let in_use = drop_version("drop while it runs")?.wait_for_failure()?;
    ensure!(in_use.contains("in use"), "{in_use}");
    coordinator.signal(Signal::SIGTERM)?;
    coordinator.wait()?;
    drop_version("drop")?.wait_for_success()?;
    ensure!(!run.out().join("policy").join(&version).exists(), "the version's folder still exists");

    let mut coordinator = run.coordinator("coordinator again")?;
    let mut learner = run.learner("learner again", 0, 1)?;
    finish([&mut learner, &mut worker, &mut coordinator])?;
    ensure!(Left::of(&run)? == *expected().await?, "the results differ from those of an undisturbed run");
    let reported: Vec<_> =
        rows(&run.out().join("metrics.jsonl"))?.iter().map(|row| row["step"].as_u64()).collect();
    ensure!(reported.into_iter().eq((1..=STEPS).map(Some)), "a step is missing or duplicated");
    Ok(())
}

#[tokio::test]
async fn removed_policies_are_recomputed_by_repeating_steps() -> Result<()> {
    let expected = undisturbed(2)?;
    let run = prepared(&["learner.checkpoint_every_steps=100"])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut learners = [run.learner("learner-0", 0, 2)?, run.learner("learner-1", 1, 2)?];
    let worker = run.worker("worker")?;
    // Evaluations have lower priority than training: that of version 2 waits while the learner continues.
    let sampled = |status: &RunStatus| status.step >= 2 && status.groups_ready == status.groups_wanted;
    let status = run.wait_until("a full step", sampled).await?;
    kill(worker)?;
    run.wait_until("three steps", |status| status.step >= 3).await?;
    ensure!(
        status.last_evaluation_version.is_none_or(|version| version < 2),
        "version 2 was evaluated: {status:?}"
    );
    remove_policies(&run)?;
    let mut worker = run.worker("another worker")?;
    finish(learners.iter_mut().chain([&mut worker, &mut coordinator]))?;
    ensure!(Left::of(&run)? == expected, "the results differ from those of an undisturbed run");
    Ok(())
}

#[tokio::test]
async fn a_removed_policy_that_cannot_be_recomputed_is_not_evaluated() -> Result<()> {
    // There are so many held-out users that their evaluation starts after the learner has passed version 2.
    let run = prepared(&["learner.checkpoint_every_steps=1", "evaluation.users=240"])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let (mut learner, worker) = (run.learner("learner", 0, 1)?, run.worker("worker")?);
    let status = run.wait_until("five steps", |status| status.step >= 5).await?;
    kill(worker)?;
    ensure!(
        status.last_evaluation_version.is_none_or(|version| version < 2),
        "version 2 was evaluated: {status:?}"
    );
    remove_policies(&run)?;
    let warned = run.wait_until("the warning", |status| {
        status.warnings.iter().any(|warning| warning.contains("policy version 2 was not evaluated"))
    });
    warned.await?;
    let mut worker = run.worker("another worker")?;
    finish([&mut learner, &mut worker, &mut coordinator])?;
    let expected = expected().await?;
    ensure!(
        run.weights_hash(STEPS)? == expected.weights,
        "the weights differ from those of an undisturbed run"
    );
    let finished: Value = serde_json::from_slice(&fs::read(run.out().join("finished.json"))?)?;
    ensure!(finished["not_evaluated"]["2"].is_string(), "finished.json does not name version 2: {finished}");
    let version = |row: &Value| row["policy_version"].as_u64();
    let evaluated: Vec<_> = rows(&run.out().join("evaluations.jsonl"))?.iter().map(version).collect();
    // If step 6 was already sampled, the learner has passed version 4, too.
    let lost = finished["not_evaluated"]["4"].is_string();
    let wanted = [0, 4, 6, 7].into_iter().filter(|version| *version != 4 || !lost).map(Some);
    ensure!(evaluated == wanted.collect::<Vec<_>>(), "the evaluated versions are {evaluated:?}: {finished}");
    Ok(())
}

/// Waits until a file has this content.
async fn restored(path: &Path, bytes: &[u8]) -> Result<()> {
    let start = Instant::now();
    while fs::read(path).ok().as_deref() != Some(bytes) {
        ensure!(start.elapsed() < PATIENCE, "{} was not recomputed", path.display());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn damaged_files_of_the_policy_in_use_are_recomputed() -> Result<()> {
    type Damage = fn(&Path, &[u8]) -> std::io::Result<()>;
    let damages: [Damage; 3] = [
        |path, bytes| fs::write(path, &bytes[..bytes.len() / 2]),
        |path, bytes| {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes)
        },
        |path, _| fs::remove_dir_all(path.parent().unwrap_or(path)),
    ];
    let run = prepared(&[])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut learner = run.learner("learner", 0, 1)?;
    for (number, damage) in damages.into_iter().enumerate() {
        let worker = run.worker(&format!("worker-{number}"))?;
        let step = number as u64 + 1;
        run.wait_until("another step", |status| status.step >= step).await?;
        kill(worker)?;
        // Without a worker the step stays unchanged, and its policy in use.
        let waits = |status: &RunStatus| status.groups_ready < status.groups_wanted;
        let status = run.wait_until("a step to sample", waits).await?;
        let weights: PathBuf = run.out().join(format!("policy/{}/model.safetensors", status.step));
        let bytes = fs::read(&weights)?;
        damage(&weights, &bytes)?;
        restored(&weights, &bytes).await?;
    }
    let mut worker = run.worker("last worker")?;
    finish([&mut learner, &mut worker, &mut coordinator])?;
    ensure!(Left::of(&run)? == *expected().await?, "the results differ from those of an undisturbed run");
    Ok(())
}
