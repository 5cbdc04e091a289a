//! Learner ranks over tcp: the same update as one rank, and the same bits on every repetition.

use anyhow::{Context, Result, ensure};
use podium_tests::{Run, rows};

fn train(world_size: u32) -> Result<Run> {
    let run =
        Run::embedded(&["run.steps=3", "run.seed=2", "rollout.prompts_per_step=12", "evaluation.users=32"])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut others = vec![run.worker("worker")?];
    for rank in 0..world_size {
        others.push(run.learner(&format!("rank-{rank}"), rank, world_size)?);
    }
    for process in &mut others {
        process.wait_for_success()?;
    }
    coordinator.wait_for_success()?;
    Ok(run)
}

/// The gradient norm of each step; the first is taken before any update could differ.
fn gradient_norms(run: &Run) -> Result<Vec<f64>> {
    let rows = rows(&run.out().join("metrics.jsonl"))?;
    rows.iter().map(|row| row["grad_norm"].as_f64().context("a row without grad_norm")).collect()
}

#[test]
fn two_ranks_train_like_one() -> Result<()> {
    let (one, two, again) = (train(1)?, train(2)?, train(2)?);
    ensure!(two.weights_hash(3)? == again.weights_hash(3)?, "two ranks left other bits the second time");
    let (one, two) = (gradient_norms(&one)?, gradient_norms(&two)?);
    ensure!((one[0] - two[0]).abs() <= 1e-6 * one[0].abs(), "gradient norms {one:?} and {two:?}");
    Ok(())
}
