//! Unusable results, over real processes: refused by name or set aside with their cause, sampled again, and the run
//! ends with the bits of an undisturbed one.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_config::RunFile;
use podium_coordinator::results::{Results, SampledBy};
use podium_coordinator::store::Store;
use podium_grpo::Step;
use podium_proto::v1;
use podium_tests::relay::Relay;
use podium_tests::{Process, Run};

const STEPS: u64 = 3;
const SETTINGS: [&str; 6] = [
    "run.steps=3",
    "run.seed=21",
    "rollout.prompts_per_step=12",
    "rollout.prompts_per_lease=4",
    "evaluation.users=16",
    "evaluation.every_steps=0",
];

fn ranks(run: &Run, world_size: u32) -> Result<Vec<Process>> {
    (0..world_size).map(|rank| run.learner(&format!("rank-{rank}"), rank, world_size)).collect()
}

fn finish<'a>(processes: impl IntoIterator<Item = &'a mut Process>) -> Result<()> {
    processes.into_iter().try_for_each(Process::wait_for_success)
}

/// Returns the hash of the final weights of an undisturbed run.
fn undisturbed(world_size: u32, settings: &[&str]) -> Result<String> {
    let run = Run::embedded(settings)?;
    let mut coordinator = run.coordinator("coordinator")?;
    let (mut ranks, mut worker) = (ranks(&run, world_size)?, run.worker("worker")?);
    finish(ranks.iter_mut().chain([&mut worker, &mut coordinator]))?;
    run.weights_hash(STEPS)
}

/// The first training group of a submission.
fn group(request: &mut v1::SubmitRequest) -> Option<&mut v1::TaskResult> {
    request
        .results
        .iter_mut()
        .find(|result| matches!(result.purpose, Some(v1::task_result::Purpose::Training(_))))
}

/// A change that makes a training group unusable.
type Fault = fn(&mut v1::TaskResult);

/// Faults that are detected at submission, and the parts of the error.
const FAULTS: [(Fault, &[&str]); 6] = [
    (|group| group.completions[1].token_ids[0] = 256, &["completion 1", "token id 256", "below 256"]),
    (|group| group.prompt_ids[3] ^= 1, &["differs at position 3", "the same ids"]),
    (
        |group| group.prompt_ids.extend([5; 300]),
        &["tokens in prompt and completion", "at most 256 (max_position_embeddings"],
    ),
    (|group| group.completions[0].logprobs[0] = -3e38, &["log-probability -3e38", "at least -104"]),
    (|group| group.completions[0].logprobs[0] = f32::NAN, &["logprobs is NaN", "finite"]),
    (|group| drop(group.completions.pop()), &["completions: expected"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_a_broken_worker_are_refused_by_name_and_change_nothing() -> Result<()> {
    let run = Run::embedded(&SETTINGS)?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut learner = run.learner("learner", 0, 1)?;
    for (number, (fault, told)) in FAULTS.into_iter().enumerate() {
        let change = move |request: &mut v1::SubmitRequest| group(request).into_iter().for_each(fault);
        let relay = Relay::start(&run, change).await?;
        let mut broken = run.worker_at(&format!("broken-{number}"), relay.address())?;
        let output = broken.wait_for_failure()?;
        for part in told.iter().chain(&["group 0.0", "results of worker", "offence 1 of 3"]) {
            ensure!(output.contains(part), "{part:?} is not in the output for fault {number}:\n{output}");
        }
        let status = run.status().await?;
        ensure!(status.groups_ready == 0, "groups of a broken worker were stored");
        ensure!(
            status.warnings.iter().any(|line| line.contains(told[0])),
            "fault {number} is not in {:?}",
            status.warnings
        );
    }
    let mut worker = run.worker("worker")?;
    finish([&mut worker, &mut learner, &mut coordinator])?;
    ensure!(
        run.weights_hash(STEPS)? == undisturbed(1, &SETTINGS)?,
        "the weights differ from those of an undisturbed run"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_probabilities_out_of_bounds_are_not_trained_on() -> Result<()> {
    for (world_size, refills) in [(1, "0"), (2, "1")] {
        let refills = format!("rollout.refill_attempts={refills}");
        let settings = [&SETTINGS[..], &[&refills]].concat();
        let run = Run::embedded(&settings)?;
        let mut coordinator = run.coordinator("coordinator")?;
        let mut ranks = ranks(&run, world_size)?;
        // The groups of the first lease, for all ranks: in some a token is just over the bound of 5 nats, in others
        // far.
        let first = AtomicBool::new(true);
        let change = move |request: &mut v1::SubmitRequest| {
            if group(request).is_some() && first.swap(false, Ordering::Relaxed) {
                for (result, distance) in request.results.iter_mut().zip([5.01, 60.0].into_iter().cycle()) {
                    result.completions[1].logprobs[0] -= distance;
                }
            }
        };
        let relay = Relay::start(&run, change).await?;
        let mut worker = run.worker_at("worker", relay.address())?;
        finish(ranks.iter_mut().chain([&mut worker, &mut coordinator]))?;
        let output = coordinator.output();
        let told = [
            "was set aside: a log-probability",
            "5.010e0",
            "6.000e1",
            "expected at most 5",
            "offence 1 of 3",
        ];
        for part in told {
            ensure!(output.contains(part), "{part:?} is not in the coordinator's log:\n{output}");
        }
        ensure!(
            run.weights_hash(STEPS)? == undisturbed(world_size, &settings)?,
            "with {world_size} ranks the weights differ from those of an undisturbed run"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_groups_in_an_older_store_are_sampled_again() -> Result<()> {
    let run = Run::embedded(&SETTINGS)?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut worker = run.worker("worker")?;
    run.wait_until("the first step's groups", |status| status.groups_ready == status.groups_wanted).await?;
    worker.signal(Signal::SIGTERM)?;
    worker.wait_for_success()?;
    coordinator.signal(Signal::SIGTERM)?;
    coordinator.wait()?;

    // As stored by coordinators without checks.
    let hash = RunFile::load(Path::new(run.run_file()), &[])?.hash();
    let store = Store::open(&run.out(), &hash)?;
    let mut groups = store.groups(Step(0))?;
    groups[2].completions[0].token_ids[0] = 9_999;
    groups[5].prompt_ids.extend([5; 300]);
    groups[7].completions[1].logprobs[0] = f32::NAN;
    groups[8].completions.pop().context("a group has completions")?;
    store.put_results(&[(Results { groups, answers: vec![] }, SampledBy::default())])?;
    drop(store);

    let mut coordinator = run.coordinator("coordinator again")?;
    let (mut learner, mut worker) = (run.learner("learner", 0, 1)?, run.worker("worker again")?);
    finish([&mut learner, &mut worker, &mut coordinator])?;
    let output = coordinator.output();
    for part in [
        "group 0.2 was set aside: token id 9999 is outside the policy's vocabulary of 256",
        "group 0.5 was set aside: a sequence has",
        "group 0.7 was set aside: Completion.logprobs is NaN",
        "group 0.8 was set aside: ScoredGroup.rewards has",
    ] {
        ensure!(output.contains(part), "{part:?} is not in the coordinator's log:\n{output}");
    }
    ensure!(
        run.weights_hash(STEPS)? == undisturbed(1, &SETTINGS)?,
        "the weights differ from those of an undisturbed run"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_with_only_broken_workers_ends_and_names_them() -> Result<()> {
    let run = Run::embedded(&SETTINGS)?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut learner = run.learner("learner", 0, 1)?;
    let change = |request: &mut v1::SubmitRequest| {
        if let Some(group) = group(request) {
            group.completions[0].logprobs[0] -= 20.0;
        }
    };
    let relay = Relay::start(&run, change).await?;
    let mut first = run.worker_at("first", relay.address())?;
    let output = first.wait_for_failure()?;
    ensure!(output.contains("receives no more leases: its results were unusable 3 times"), "{output}");
    let mut second = run.worker_at("second", relay.address())?;
    let said = learner.wait_for_failure()?;
    for part in ["was set aside 6 times", "by worker", "learner.max_logprob_gap_nats"] {
        ensure!(said.contains(part), "{part:?} is not in the learner's log:\n{said}");
    }
    second.wait()?;
    coordinator.wait_for_success()?;
    Ok(())
}
