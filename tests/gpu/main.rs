//! Tests that require a GPU (`make gpu`). Without one they fail, since they are requested explicitly.

use anyhow::{Context, Result, ensure};
use podium_tests::launched::undisturbed;
use podium_tests::{Process, Run, Weights, rows};

const SETTINGS: [&str; 4] =
    ["run.steps=3", "run.seed=2", "rollout.prompts_per_step=16", "evaluation.users=32"];

/// Runs a training whose learner computes on `device`; its worker samples on the CPU, so that all runs start with the
/// same groups.
fn train(device: &str, settings: &[&str]) -> Result<Run> {
    let run = Run::embedded(&[&SETTINGS[..], settings].concat())?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut worker = run.worker("worker")?;
    let mut learner = Process::start("learner", run.learner_command(0, 1, device)?, run.folder())?;
    for process in [&mut learner, &mut worker, &mut coordinator] {
        process.wait_for_success()?;
    }
    Ok(run)
}

fn metric(run: &Run, step: usize, name: &str) -> Result<f64> {
    let rows = rows(&run.out().join("metrics.jsonl"))?;
    rows.get(step).and_then(|row| row[name].as_f64()).with_context(|| format!("step {step} has no {name}"))
}

#[test]
fn a_gpu_trains_like_a_cpu() -> Result<()> {
    let (gpu, cpu) = (train("cuda", &[])?, train("cpu", &[])?);
    for name in ["loss", "grad_norm", "kl", "entropy"] {
        let (found, expected) = (metric(&gpu, 0, name)?, metric(&cpu, 0, name)?);
        ensure!(
            (found - expected).abs() <= 1e-4 * (1e-3 + expected.abs()),
            "{name}: {found}, on a CPU {expected}"
        );
    }
    let distance = Weights::read(&gpu.out(), 1)?.distance(&Weights::read(&cpu.out(), 1)?)?;
    ensure!(distance <= 1e-4, "after one step the weights differ by {distance:e} of their norm");
    Ok(())
}

#[test]
fn nccl_with_one_rank_changes_nothing() -> Result<()> {
    let (with, without) = (train("cuda", &["network.collective='nccl'"])?, train("cuda", &[])?);
    ensure!(with.weights_hash(3)? == without.weights_hash(3)?, "a sum over one rank changes the number");
    Ok(())
}

#[test]
fn bfloat16_stays_near_float32() -> Result<()> {
    let (short, long) = (train("cuda", &["model.dtype='bfloat16'"])?, train("cuda", &[])?);
    for (name, tolerance) in [("entropy", 0.02), ("sampling/sampling_logp_difference/mean", 0.02)] {
        let (found, expected) = (metric(&short, 0, name)?, metric(&long, 0, name)?);
        ensure!((found - expected).abs() <= tolerance, "{name}: {found}, in float32 {expected}");
    }
    Ok(())
}

#[test]
fn one_process_computes_the_bits_of_two_on_one_gpu() -> Result<()> {
    let hash = |colocate| {
        let pair = [
            "lora.rank=4",
            "rollout.threads=2",
            "launch.workers=1",
            "launch.rollout_device='cuda:0'",
            "launch.learner_device='cuda:0'",
            colocate,
        ];
        undisturbed(&[&SETTINGS[..], &pair].concat(), 3)
    };
    let (one, two) = (hash("launch.colocate=process")?, hash("launch.colocate=share")?);
    ensure!(one == two, "learner and worker in one process have other bits");
    Ok(())
}
