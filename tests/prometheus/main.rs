//! The shipped configuration of Prometheus with real runs; requires `prometheus` and `promtool` on the path.

mod server;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_dashboards::ALL;
use podium_tests::{PATIENCE, Run, path_text};

use crate::server::{MISSING, Prometheus, SCRAPE_INTERVAL, shipped};

/// A run of many small steps that would take hours.
const ENDLESS: [&str; 9] = [
    "run.steps=100000",
    "rollout.prompts_per_step=16",
    "rollout.prompts_per_lease=4",
    "evaluation.users=16",
    // The watch requires five steps in a window.
    "evaluation.every_steps=5",
    "watch.window=2",
    // Two evaluations of a few users each would trigger it by chance.
    "watch.min_reward_gain=1",
    "network.heartbeat_interval_ms=200",
    "network.lease_deadline_ms=2000",
];

#[test]
fn rules_are_valid_and_every_alert_fires() -> Result<()> {
    let promtool = |arguments: &[&str], folder: &Path| -> Result<()> {
        let mut command = Command::new("promtool");
        let output = command.args(arguments).current_dir(folder).output().context(MISSING)?;
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        ensure!(output.status.success(), "promtool {arguments:?}: {}", told.concat());
        Ok(())
    };
    let folder = shipped();
    promtool(&["check", "config", "prometheus.yml"], &folder)?;
    promtool(&["test", "rules", "alerts.yml"], &folder.join("tests"))
}

#[tokio::test]
async fn joining_workers_are_scraped_and_every_panel_has_data() -> Result<()> {
    let run = Run::embedded(&ENDLESS)?;
    let coordinator = run.coordinator("coordinator")?;
    let prometheus = Prometheus::start(&run.metrics_address()?, run.folder())?;
    let (learner, steady) = (run.learner("learner", 0, 1)?, run.worker("steady")?);
    prometheus
        .wait_for("coordinator, worker and learner to be scraped", || Ok(prometheus.healthy()?.len() == 3))?;
    let before = prometheus.targets()?;

    let mut guest = run.worker("guest")?;
    run.wait_until("the guest", |status| status.workers.len() == 2).await?;
    let joined = Instant::now();
    let new = || -> Result<Option<String>> {
        Ok(prometheus.targets()?.into_iter().find(|process| !before.contains(process)))
    };
    prometheus.wait_for("the guest to be found", || Ok(new()?.is_some()))?;
    let took = joined.elapsed();
    ensure!(
        took < SCRAPE_INTERVAL,
        "it took {took:?} to find a worker that joined: more than a scrape interval"
    );
    let name = new()?.context("the guest is gone")?;
    prometheus.wait_for("the guest to be scraped", || Ok(prometheus.healthy()?.contains(&name)))?;
    guest.signal(Signal::SIGTERM)?;
    guest.wait_for_success()?;
    prometheus.wait_for("the guest to be gone", || Ok(!prometheus.targets()?.contains(&name)))?;
    eprintln!("{name} was found {:.1} s after it had joined, and is gone", took.as_secs_f64());

    let mut empty: Vec<(&str, &str, &str)> = ALL
        .iter()
        .flat_map(|dashboard| dashboard.queries().map(|(panel, query)| (dashboard.name, panel, query)))
        // Processes on the CPU have no metrics of a GPU; tests/gpus.rs checks their values.
        .filter(|(.., query)| !query.contains("podium_gpu_"))
        .collect();
    let all = empty.len();
    let start = Instant::now();
    while !empty.is_empty() {
        let mut left = Vec::new();
        for (dashboard, panel, query) in empty {
            if prometheus.query(query)?.is_empty() {
                left.push((dashboard, panel, query));
            }
        }
        empty = left;
        ensure!(start.elapsed() < PATIENCE, "queries without data after {PATIENCE:?}: {empty:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    eprintln!(
        "all {all} queries of the dashboards without a GPU had data after {:.0} s",
        start.elapsed().as_secs_f64()
    );
    let mut firing = prometheus.firing()?;
    // The disk of the machine that runs the test may be nearly full without any fault of the run.
    firing.retain(|alert| alert != "PodiumDiskNearlyFull");
    ensure!(firing.is_empty(), "alerts in a healthy run: {firing:?}");
    drop((learner, steady, coordinator));
    Ok(())
}

#[tokio::test]
async fn alerts_fire_in_a_faulty_run() -> Result<()> {
    // Two tokens are too few for an answer: all answers are malformed.
    let overrides = [&ENDLESS[..], &["rollout.max_new_tokens=2", "reward.check=warn"]].concat();
    let run = Run::embedded(&overrides)?;
    let coordinator = run.coordinator("coordinator")?;
    let prometheus = Prometheus::start(&run.metrics_address()?, run.folder())?;
    let (learner, steady, victim) =
        (run.learner("learner", 0, 1)?, run.worker("steady")?, run.worker("victim")?);
    let firing = |alert: &'static str| {
        prometheus.wait_for(alert, || prometheus.firing().map(|alerts| alerts.iter().any(|one| one == alert)))
    };
    firing("PodiumAllMalformed")?;
    prometheus.wait_for("both workers to be scraped", || Ok(prometheus.healthy()?.len() == 4))?;
    victim.signal(Signal::SIGKILL)?;
    firing("PodiumWorkerLost")?;
    // The learner neither works nor answers.
    learner.signal(Signal::SIGSTOP)?;
    firing("PodiumProcessDown")?;
    firing("PodiumRunStalled")?;
    let alerts = prometheus.firing()?;
    eprintln!("firing at the end: {alerts:?}");
    learner.signal(Signal::SIGCONT)?;
    drop((learner, steady, victim, coordinator));
    Ok(())
}

/// Copies a shipped file with changes.
fn copy(from: &Path, to: &Path, change: impl Fn(String) -> String) -> Result<()> {
    let text = std::fs::read_to_string(from).with_context(|| path_text(from).to_owned())?;
    Ok(std::fs::write(to, change(text))?)
}
