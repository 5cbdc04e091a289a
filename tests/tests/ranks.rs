//! Learner ranks over TCP: the same update as one rank, for every cut of the groups into micro-batches, and the same
//! bits on every repetition.

use anyhow::{Context, Result, ensure};
use podium_tests::{Run, Weights, rows};

fn train(world_size: u32, groups_per_micro_batch: u32) -> Result<Run> {
    let micro_batch = format!("learner.groups_per_micro_batch={groups_per_micro_batch}");
    let settings =
        ["run.steps=3", "run.seed=2", "rollout.prompts_per_step=12", "evaluation.users=32", &micro_batch];
    let run = Run::embedded(&settings)?;
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

/// Returns the gradient norm of each step; the first precedes any update that could differ.
fn gradient_norms(run: &Run) -> Result<Vec<f64>> {
    let rows = rows(&run.out().join("metrics.jsonl"))?;
    rows.iter().map(|row| row["grad_norm"].as_f64().context("a row without grad_norm")).collect()
}

#[test]
fn ranks_and_micro_batches_change_nothing() -> Result<()> {
    let one = train(1, 12)?;
    let (norms, weights) = (gradient_norms(&one)?, Weights::read(&one.out(), 3)?);
    for (world_size, groups) in [(2, 6), (4, 2), (1, 5)] {
        let other = train(world_size, groups)?;
        let what = format!("{world_size} ranks with micro-batches of {groups} groups");
        let (first, expected) = (gradient_norms(&other)?[0], norms[0]);
        ensure!(
            (first - expected).abs() <= 1e-6 * expected,
            "{what}: the gradient's norm is {first}, {expected} of one rank"
        );
        let distance = Weights::read(&other.out(), 3)?.distance(&weights)?;
        ensure!(distance <= 1e-6, "{what}: the weights differ by {distance:e} of their norm");
    }
    Ok(())
}

#[test]
fn two_ranks_repeat_to_the_bit() -> Result<()> {
    let (first, again) = (train(2, 6)?, train(2, 6)?);
    ensure!(
        first.weights_hash(3)? == again.weights_hash(3)?,
        "two ranks end with other bits the second time"
    );
    Ok(())
}
