//! Runs whose ranks sum over NCCL, with the tests' stand-in for NCCL.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_stand_in::calls;
use podium_tests::{Process, Run, Weights, path_text};

const SETTINGS: [&str; 4] =
    ["run.seed=4", "rollout.prompts_per_step=16", "evaluation.users=32", "learner.checkpoint_every_steps=2"];

/// The optimizer's state whole on each rank, and sharded over the ranks.
const ZERO_STAGES: [&str; 2] = ["learner.zero_stage=0", "learner.zero_stage=1"];

/// Runs `podium demo` with `ranks` ranks in `folder`; returns the weights after three steps.
fn demo(folder: &Path, ranks: &str, extra: &[&str]) -> Result<Weights> {
    let out = folder.join("run");
    fs::create_dir_all(calls_in(folder))?;
    let mut arguments = vec!["demo", "--steps", "3", "--learner-ranks", ranks, "--workers", "1"];
    arguments.extend(["--out", path_text(&out), "--set", "launch.learner_device='cpu'"]);
    arguments.extend(SETTINGS.iter().flat_map(|setting| ["--set", setting]));
    arguments.extend(extra);
    let path = podium_nccl_stand_in::install(folder)?;
    let mut demo = Process::prepare("podium", &arguments);
    demo.env("LD_LIBRARY_PATH", path).env(podium_nccl_stand_in::CALLS, calls_in(folder));
    Process::start("demo", demo, folder)?.wait_for_success()?;
    Weights::read(&out, 3)
}

/// The folder in which a demo's calls of NCCL are recorded.
fn calls_in(folder: &Path) -> PathBuf {
    folder.join("calls")
}

#[test]
fn four_ranks_over_nccl_train_like_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let one = demo(&folder.path().join("one"), "1", &[])?;
    for (stage, sum) in ZERO_STAGES.into_iter().zip(["ncclAllReduce", "ncclReduceScatter"]) {
        let folder = folder.path().join(stage);
        let four = demo(&folder, "4", &["--collective", "nccl", "--set", stage])?;
        let distance = four.distance(&one)?;
        ensure!(distance > 0.0, "{stage}: four ranks add in another order, so the weights must differ");
        ensure!(
            distance <= 1e-6,
            "{stage}: the weights of four ranks and one differ by {distance:e} of their norm"
        );
        check_calls(&folder, sum).context(stage)?;
    }
    Ok(())
}

/// Checks that each of four ranks called NCCL on one thread and the default stream alone, and summed with `sum`.
fn check_calls(folder: &Path, sum: &str) -> Result<()> {
    let processes = calls::read(&calls_in(folder))?;
    ensure!(processes.len() == 4, "{} processes called NCCL", processes.len());
    for calls in processes {
        ensure!(calls.iter().any(|call| call.function == sum), "a rank never called {sum}");
        let thread = &calls[0].thread;
        let odd = calls.iter().find(|call| call.thread != *thread || call.stream != 0);
        ensure!(odd.is_none(), "{odd:?}: expected {thread} and the default stream");
    }
    Ok(())
}

/// A run of four ranks, started one by one.
struct Ranks {
    run: Run,
    path: std::ffi::OsString,
}

impl Ranks {
    fn new(zero_stage: &str) -> Result<Self> {
        let settings = [&SETTINGS[..], &["run.steps=6", "network.collective='nccl'", zero_stage]].concat();
        let run = Run::embedded(&settings)?;
        let path = podium_nccl_stand_in::install(run.folder())?;
        Ok(Self { run, path })
    }

    fn rank(&self, name: &str, rank: u32) -> Result<Process> {
        let mut command = self.run.learner_command(rank, 4, "cpu")?;
        command.env("LD_LIBRARY_PATH", &self.path);
        Process::start(name, command, self.run.folder())
    }
}

#[tokio::test]
async fn a_killed_rank_is_named_and_the_run_ends_with_the_same_weights() -> Result<()> {
    kill_a_rank(ZERO_STAGES[0]).await
}

#[tokio::test]
async fn a_killed_rank_of_a_sharded_optimizer_changes_nothing() -> Result<()> {
    kill_a_rank(ZERO_STAGES[1]).await
}

/// Compares an undisturbed run with one in which a rank is killed.
async fn kill_a_rank(zero_stage: &str) -> Result<()> {
    let undisturbed = Ranks::new(zero_stage)?;
    let mut coordinator = undisturbed.run.coordinator("coordinator")?;
    let mut others = vec![undisturbed.run.worker("worker")?];
    for rank in 0..4 {
        others.push(undisturbed.rank(&format!("rank-{rank}"), rank)?);
    }
    for process in &mut others {
        process.wait_for_success()?;
    }
    coordinator.wait_for_success()?;

    let disturbed = Ranks::new(zero_stage)?;
    let mut coordinator = disturbed.run.coordinator("coordinator")?;
    let mut others = vec![disturbed.run.worker("worker")?];
    for rank in [0, 1, 3] {
        others.push(disturbed.rank(&format!("rank-{rank}"), rank)?);
    }
    let mut victim = disturbed.rank("rank-2", 2)?;
    disturbed.run.wait_until("a step past a checkpoint", |status| status.step >= 3).await?;
    victim.signal(Signal::SIGKILL)?;
    victim.wait()?;
    let blames = |warning: &String| warning.starts_with("rank 0 joins again") && warning.contains("rank 2");
    let status =
        disturbed.run.wait_until("rank 2 to be named", |status| status.warnings.iter().any(blames)).await?;
    ensure!(status.step < 6, "the run was over before the rank was killed");
    others.push(disturbed.rank("rank-2 again", 2)?);
    for process in others.iter_mut().chain([&mut coordinator]) {
        process.wait_for_success()?;
    }
    ensure!(
        disturbed.run.weights_hash(6)? == undisturbed.run.weights_hash(6)?,
        "a rank's death changed the final weights"
    );
    Ok(())
}

#[test]
fn a_missing_required_nccl_is_an_immediate_error() -> Result<()> {
    let run = Run::embedded(&[&SETTINGS[..], &["network.collective='nccl'"]].concat())?;
    let _coordinator = run.coordinator("coordinator")?;
    let mut command = run.learner_command(0, 2, "cpu")?;
    // A folder without the stand-in, for machines with and without a real NCCL.
    command.env("LD_LIBRARY_PATH", run.folder());
    let output = Process::start("rank", command, run.folder())?.wait_for_failure()?;
    let cause = output.lines().last().context("there is no output")?;
    ensure!(cause.contains("network.collective is nccl"), "{output}");
    ensure!(cause.contains("libnccl.so") || cause.contains("works on GPUs"), "{output}");
    Ok(())
}
