//! Runs whose ranks sum over NCCL, with the tests' stand-in for NCCL.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_tests::{Process, Run, Weights, path_text};

const SETTINGS: [&str; 4] =
    ["run.seed=4", "rollout.prompts_per_step=16", "evaluation.users=32", "learner.checkpoint_every_steps=2"];

/// Runs `podium demo` with `ranks` ranks; returns the weights after three steps.
fn demo(folder: &Path, ranks: &str, extra: &[&str]) -> Result<Weights> {
    let out = folder.join(format!("ranks-{ranks}"));
    let mut arguments = vec!["demo", "--steps", "3", "--learner-ranks", ranks, "--workers", "1"];
    arguments.extend(["--out", path_text(&out), "--set", "launch.learner_device='cpu'"]);
    arguments.extend(SETTINGS.iter().flat_map(|setting| ["--set", setting]));
    arguments.extend(extra);
    let path = podium_nccl_stand_in::install::install(folder)?;
    let mut demo = Process::prepare("podium", &arguments);
    demo.env("LD_LIBRARY_PATH", path);
    Process::start(&format!("demo-{ranks}"), demo, folder)?.wait_for_success()?;
    Weights::read(&out, 3)
}

#[test]
fn four_ranks_over_nccl_train_like_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let four = demo(folder.path(), "4", &["--collective", "nccl"])?;
    let one = demo(folder.path(), "1", &[])?;
    let distance = four.distance(&one)?;
    ensure!(distance > 0.0, "four ranks add in another order, so the weights must differ");
    ensure!(distance <= 1e-6, "the weights of four ranks and one differ by {distance:e} of their norm");
    Ok(())
}

/// A run of three ranks, started one by one.
struct Ranks {
    run: Run,
    path: std::ffi::OsString,
}

impl Ranks {
    fn new() -> Result<Self> {
        let settings = [&SETTINGS[..], &["run.steps=6", "network.collective='nccl'"]].concat();
        let run = Run::embedded(&settings)?;
        let path = podium_nccl_stand_in::install::install(run.folder())?;
        Ok(Self { run, path })
    }

    fn rank(&self, name: &str, rank: u32) -> Result<Process> {
        let mut command = self.run.learner_command(rank, 3, "cpu")?;
        command.env("LD_LIBRARY_PATH", &self.path);
        Process::start(name, command, self.run.folder())
    }
}

#[tokio::test]
async fn a_killed_rank_is_named_and_the_run_ends_with_the_same_weights() -> Result<()> {
    let undisturbed = Ranks::new()?;
    let mut coordinator = undisturbed.run.coordinator("coordinator")?;
    let mut others = vec![undisturbed.run.worker("worker")?];
    for rank in 0..3 {
        others.push(undisturbed.rank(&format!("rank-{rank}"), rank)?);
    }
    for process in &mut others {
        process.wait_for_success()?;
    }
    coordinator.wait_for_success()?;

    let disturbed = Ranks::new()?;
    let mut coordinator = disturbed.run.coordinator("coordinator")?;
    let mut worker = disturbed.run.worker("worker")?;
    let (mut leader, mut steady) = (disturbed.rank("rank-0", 0)?, disturbed.rank("rank-1", 1)?);
    let mut victim = disturbed.rank("rank-2", 2)?;
    disturbed.run.wait_until("a step past a checkpoint", |status| status.step >= 3).await?;
    victim.signal(Signal::SIGKILL)?;
    victim.wait()?;
    let blames = |warning: &String| warning.starts_with("rank 0 joins again") && warning.contains("rank 2");
    let status =
        disturbed.run.wait_until("rank 2 to be named", |status| status.warnings.iter().any(blames)).await?;
    ensure!(status.step < 6, "the run was over before the rank was killed");
    let mut again = disturbed.rank("rank-2 again", 2)?;
    for process in [&mut worker, &mut leader, &mut steady, &mut again, &mut coordinator] {
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
