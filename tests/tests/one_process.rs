//! Learner rank and worker in one process (`launch.colocate = "process"`): the bits of separate processes, through
//! crashes and shutdowns, with one copy of the base weights.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podium_tests::launched::{Launched, started, undisturbed};
use podium_tests::{PATIENCE, Process, Run, path_text};

const STEPS: u64 = 6;

const SETTINGS: [&str; 11] = [
    "run.steps=6",
    "run.seed=3",
    "lora.rank=4",
    "lora.dropout=0.1",
    "rollout.prompts_per_step=24",
    "evaluation.users=48",
    "evaluation.every_steps=2",
    "learner.checkpoint_every_steps=2",
    "learner.threads=1",
    "launch.workers=1",
    "launch.rollout_device=cpu",
];

fn settings(colocate: &'static str) -> Vec<&'static str> {
    [&SETTINGS[..], &["launch.learner_device=cpu", colocate]].concat()
}

/// Waits for the process that is learner and worker and returns its id; `not`: that of an earlier one.
fn colocated(podium: &Process, not: Option<Pid>) -> Result<Pid> {
    Ok(started(podium, "podium-colocated", 1, not.as_slice())?[0])
}

#[tokio::test]
async fn one_process_computes_the_bits_of_two_through_crashes_and_shutdowns() -> Result<()> {
    let expected = undisturbed(&settings("launch.colocate=none"), STEPS)?;
    ensure!(
        undisturbed(&settings("launch.colocate=process"), STEPS)? == expected,
        "one process has other bits"
    );

    let run = Launched::new(&settings("launch.colocate=process"))?;
    let mut podium = run.start("podium")?;
    run.reach(1).await?;
    let first = colocated(&podium, None)?;
    kill(first, Signal::SIGKILL)?;
    let second = colocated(&podium, Some(first))?;
    run.reach(3).await?;
    // A graceful shutdown of the process alone: it is started again.
    kill(second, Signal::SIGTERM)?;
    colocated(&podium, Some(second))?;
    run.reach(4).await?;
    podium.signal(Signal::SIGTERM)?;
    podium.wait_for_code(podium_service::shutdown::STOPPED.into())?;
    let output = podium.output();
    ensure!(output.contains("by 1 worker and 1 learner rank in one process"), "{output}");
    ensure!(output.contains("learner-0+worker-1 died (SIGKILL)"), "{output}");
    ensure!(output.contains("learner-0+worker-1 died (exit code 75)"), "{output}");
    ensure!(run.run.out().join("logs/learner-0+worker-1.log").is_file());
    run.start("podium again")?.wait_for_success()?;
    run.check_weights(STEPS, &expected)
}

#[tokio::test]
async fn status_and_targets_list_both_roles_of_the_process() -> Result<()> {
    let run = Launched::new(&settings("launch.colocate=process"))?;
    let podium = run.start("podium")?;
    run.reach(1).await?;
    let status = run.run.status().await?;
    ensure!(status.workers.len() == 1 && status.ranks.len() == 1, "{status:?}");
    let targets = podium_tests::scrape::get(&run.run.metrics_address()?, "/targets")?;
    let targets: Vec<serde_json::Value> = serde_json::from_str(&targets)?;
    let both: Vec<_> = targets.iter().filter(|target| target["labels"]["role"] == "learner+worker").collect();
    ensure!(targets.len() == 2 && both.len() == 1, "{targets:?}");
    let address = both[0]["targets"][0].as_str().context("an address")?;
    let metrics = podium_tests::scrape::get(address, "/metrics/declared")?;
    ensure!(metrics.contains("podium_rollout_") && metrics.contains("podium_learner_"), "{metrics}");
    drop(podium);
    Ok(())
}

#[test]
fn a_failed_role_ends_the_process_with_its_error() -> Result<()> {
    let run = Run::embedded(&settings("launch.colocate=process"))?;
    let _coordinator = run.coordinator("coordinator")?;
    // The worker cannot use its folder.
    let cache = run.folder().join("cache");
    fs::write(&cache, "a file")?;
    let error = start(&run, &cache)?.wait_for_failure()?;
    ensure!(error.contains("the worker failed") && error.contains(path_text(&cache)), "{error}");
    Ok(())
}

/// Starts the process that is learner and worker of a run whose coordinator was started.
fn start(run: &Run, cache: &Path) -> Result<Process> {
    let (out, state) = (run.out(), run.folder().join("learner"));
    let own = ["--run-file", run.run_file(), "--coordinator-from", path_text(&out), "--device", "cpu"];
    let folders = ["--state", path_text(&state), "--cache", path_text(cache)];
    Process::spawn("colocated", "podium-colocated", &[&own[..], &folders].concat(), run.folder())
}

/// Returns the largest resident memory of a process so far, in bytes.
fn peak_memory(process: &Process) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kilobytes = line.trim().trim_end_matches(" kB");
    Ok(kilobytes.parse::<u64>()? << 10)
}

/// Width, layers and vocabulary of a model of 25 million parameters beside the embedding, 100 MB in float32.
const SHAPE: [(&str, i64); 6] = [
    ("hidden_size", 512),
    ("intermediate_size", 1536),
    ("num_hidden_layers", 8),
    ("num_attention_heads", 8),
    ("num_key_value_heads", 4),
    ("head_dim", 64),
];

/// Creates a policy of random weights in the run's folder, with the tokenizer of the embedded one; returns the number of
/// bytes of its weights.
fn enlarge(run: &Run) -> Result<u64> {
    let start = run.out().join("start");
    let path = start.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    for (key, value) in SHAPE {
        config[key] = value.into();
    }
    fs::write(run.folder().join("config.json"), config.to_string())?;
    let (large, shape) = (run.folder().join("large"), run.folder().join("config.json"));
    let arguments =
        ["sft", "--run-file", run.run_file(), "--model-config", path_text(&shape), "--init-seed", "1"];
    let rest = [
        "--set",
        "lora.rank=0",
        "--set",
        "launch.colocate=none",
        "--set",
        "sft.steps=0",
        "--device",
        "cpu",
        "--out",
        path_text(&large),
    ];
    Process::spawn("sft", "podium-learner", &[&arguments[..], &rest].concat(), run.folder())?
        .wait_for_success()?;
    fs::remove_dir_all(&start)?;
    fs::rename(&large, &start)?;
    Ok(fs::metadata(start.join("model.safetensors"))?.len())
}

/// Trains a step and returns the sum of the peaks of the processes that hold the weights, and the size of these.
fn measured(one_process: bool) -> Result<(u64, u64)> {
    let changes = ["run.steps=2", "rollout.prompts_per_step=4", "evaluation.users=4", "rollout.group_size=2"];
    let run = Run::embedded(&[&settings("launch.colocate=process")[..], &changes].concat())?;
    let base = enlarge(&run)?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut processes = if one_process {
        vec![start(&run, &run.folder().join("cache"))?]
    } else {
        vec![run.learner("learner", 0, 1)?, run.worker("worker")?]
    };
    let mut peaks = vec![0; processes.len()];
    let began = Instant::now();
    loop {
        // A process that has ended has no memory.
        let now: Vec<u64> = processes.iter().map(|process| peak_memory(process).unwrap_or(0)).collect();
        if now.iter().all(|peak| *peak == 0) {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "the run does not end:\n{}", coordinator.output());
        peaks = peaks.into_iter().zip(now).map(|(peak, now)| peak.max(now)).collect();
        std::thread::sleep(Duration::from_millis(10));
    }
    for process in processes.iter_mut().chain([&mut coordinator]) {
        process.wait_for_success()?;
    }
    Ok((peaks.iter().sum(), base))
}

#[test]
fn one_process_holds_the_base_weights_once() -> Result<()> {
    let ((two, base), (one, _)) = (measured(false)?, measured(true)?);
    let mib = |bytes: u64| bytes >> 20;
    println!("two processes {} MiB, one {} MiB, base weights {} MiB", mib(two), mib(one), mib(base));
    // libtorch's own memory is saved too.
    ensure!(base > 80 << 20 && one + base * 9 / 10 < two, "{} and {} MiB", mib(one), mib(two));
    Ok(())
}
