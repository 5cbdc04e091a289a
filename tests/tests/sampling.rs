//! Sampling modes of a run: dynamic sampling is repeatable, asynchronous mode respects its bound.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_proto::v1::RunStatus;
use podium_tests::{Process, Run, rows};

const SMALL: [&str; 5] = [
    "run.steps=6",
    "run.seed=9",
    "rollout.prompts_per_step=16",
    "rollout.prompts_per_lease=4",
    "evaluation.users=64",
];

/// A small run of the embedded demo with one additional setting.
fn small(setting: &str) -> Result<Run> {
    Run::embedded(&[&SMALL[..], &[setting, "learner.checkpoint_every_steps=2"]].concat())
}

fn finish(mut processes: Vec<Process>) -> Result<()> {
    processes.iter_mut().rev().try_for_each(Process::wait_for_success)
}

fn undisturbed(run: &Run, workers: u32) -> Result<()> {
    let mut processes = vec![run.coordinator("coordinator")?, run.learner("learner", 0, 1)?];
    for worker in 0..workers {
        processes.push(run.worker(&format!("worker-{worker}"))?);
    }
    finish(processes)
}

/// Returns a metric of every step.
fn metric(run: &Run, name: &str) -> Result<Vec<f64>> {
    let rows = rows(&run.out().join("metrics.jsonl"))?;
    rows.iter().map(|row| row[name].as_f64().with_context(|| format!("{name} in {row}"))).collect()
}

#[tokio::test]
async fn dynamic_sampling_is_repeatable() -> Result<()> {
    let setting = "rollout.refill_attempts=2";
    let alone = small(setting)?;
    undisturbed(&alone, 1)?;
    let weights = alone.weights_hash(6)?;
    let discarded = metric(&alone, "groups/discarded")?;
    ensure!(discarded.iter().sum::<f64>() > 0.0, "no group had equal rewards: nothing was tested");
    ensure!(discarded.iter().all(|&groups| groups <= 32.0), "{discarded:?}: at most twice 16 per step");

    let many = small(setting)?;
    undisturbed(&many, 3)?;
    ensure!(many.weights_hash(6)? == weights, "three workers end with other weights than one");

    let disturbed = small(setting)?;
    let coordinator = disturbed.coordinator("coordinator")?;
    let learner = disturbed.learner("learner", 0, 1)?;
    let (steady, mut victim) = (disturbed.worker("steady")?, disturbed.worker("victim")?);
    disturbed
        .wait_until("a lease to lose", |status| {
            status.step >= 1 && status.workers.iter().filter(|worker| worker.leases > 0).count() == 2
        })
        .await?;
    victim.signal(Signal::SIGKILL)?;
    victim.wait()?;
    disturbed
        .wait_until("a step that is partly sampled", |status| {
            status.step >= 2 && (1..status.groups_wanted).contains(&status.groups_ready)
        })
        .await?;
    coordinator.signal(Signal::SIGKILL)?;
    drop(coordinator);
    let again = disturbed.coordinator("coordinator again")?;
    finish(vec![again, learner, steady, disturbed.worker("late")?])?;
    ensure!(disturbed.weights_hash(6)? == weights, "killed processes changed the weights");
    ensure!(metric(&disturbed, "groups/discarded")? == discarded, "the same groups were replaced");
    Ok(())
}

#[tokio::test]
async fn asynchronous_mode_respects_its_bound_with_a_slow_and_a_fast_worker() -> Result<()> {
    let run = small("rollout.max_policy_lag=2")?;
    let (coordinator, learner) = (run.coordinator("coordinator")?, run.learner("learner", 0, 1)?);
    let slow = run.worker("slow")?;
    run.wait_until("a first group", |status| status.groups_ready > 0 || status.step > 0).await?;
    let fast = run.worker("fast")?;
    let done = |status: &RunStatus| status.workers.iter().map(|worker| worker.groups_done).sum::<u64>();
    let nearly_over = |status: &RunStatus| status.step >= 4;
    // The slow worker is stopped until the other has submitted some more groups.
    for _ in 0..3 {
        slow.signal(Signal::SIGSTOP)?;
        let before = done(&run.status().await?);
        let more = |groups| move |status: &RunStatus| done(status) >= before + groups || nearly_over(status);
        run.wait_until("the fast worker", more(8)).await?;
        slow.signal(Signal::SIGCONT)?;
        if nearly_over(&run.wait_until("both workers", more(12)).await?) {
            break;
        }
    }
    finish(vec![coordinator, learner, slow, fast])?;
    let lags = metric(&run, "groups/policy_lag/max")?;
    ensure!(lags.len() == 6 && lags.iter().all(|&lag| lag <= 2.0), "{lags:?}: at most 2 versions");
    ensure!(
        lags.iter().any(|&lag| lag > 0.0),
        "no group was sampled ahead of the learner: nothing was tested"
    );
    Ok(())
}
