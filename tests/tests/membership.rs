//! Workers join and disconnect repeatedly in one run under load: every group is used once, and the counts add up.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use podium_config::RunFile;
use podium_proto::PROTOCOL_VERSION;
use podium_proto::v1::{self, RunStatus};
use podium_tests::scrape::Scrape;
use podium_tests::{PATIENCE, Process, Run, rows};

/// Steps of the run, which takes longer than all guests on a fast machine.
const STEPS: u64 = 72;
const PROMPTS: u64 = 32;
/// Number of workers that join and disconnect.
const GUESTS: usize = 20;

/// A temporary worker.
struct Guest {
    process: Process,
    id: String,
}

/// The way in which a guest disappears.
enum Way {
    /// Graceful: receives SIGTERM and submits its lease.
    Told,
    /// Killed without notice: its lease expires.
    Killed,
    /// SIGTERM after it was silent for so long that its lease was reassigned: it submits the same groups again.
    Late,
}

impl Way {
    const fn of(number: usize) -> Self {
        match number % 4 {
            1 => Self::Killed,
            3 => Self::Late,
            _ => Self::Told,
        }
    }
}

fn holds_a_lease(status: &RunStatus, id: &str) -> bool {
    status.workers.iter().any(|worker| worker.worker_id == id && worker.leases > 0)
}

/// Starts a worker and waits until it has work.
async fn join(run: &Run, name: &str, known: &mut BTreeSet<String>) -> Result<Guest> {
    let process = run.worker(name)?;
    let new = |status: &RunStatus| {
        let ids = status.workers.iter().map(|worker| worker.worker_id.clone());
        ids.into_iter().find(|id| !known.contains(id) && holds_a_lease(status, id))
    };
    let status = run.wait_until("the new worker's first lease", |status| new(status).is_some()).await?;
    let id = new(&status).unwrap_or_default();
    known.insert(id.clone());
    Ok(Guest { process, id })
}

async fn leave(run: &Run, mut guest: Guest, way: Way) -> Result<()> {
    // It may just have submitted its lease.
    run.wait_until("a lease to shut down with", |status| holds_a_lease(status, &guest.id)).await?;
    match way {
        Way::Told => {
            guest.process.signal(Signal::SIGTERM)?;
            guest.process.wait_for_success()
        }
        Way::Killed => {
            guest.process.signal(Signal::SIGKILL)?;
            guest.process.wait().map(drop)
        }
        Way::Late => {
            guest.process.signal(Signal::SIGSTOP)?;
            let gone = |status: &RunStatus| status.workers.iter().all(|worker| worker.worker_id != guest.id);
            run.wait_until("the silent worker to count as lost", gone).await?;
            guest.process.signal(Signal::SIGTERM)?;
            guest.process.signal(Signal::SIGCONT)?;
            guest.process.wait_for_success()
        }
    }
}

/// Returns the coordinator's metrics at the end of the run. It would exit at once, were it not for a witness: a
/// worker that never requests a lease and does not shut down.
async fn last_scrape(run: &Run) -> Result<Scrape> {
    let (start, address, coordinator) = (Instant::now(), run.metrics_address()?, run.client()?);
    let worker_id = uuid::Uuid::new_v4().to_string();
    let register = v1::RegisterRequest {
        worker_id: worker_id.clone(),
        run_hash: RunFile::load(Path::new(run.run_file()), &[])?.hash(),
        protocol: PROTOCOL_VERSION,
        ..v1::RegisterRequest::default()
    };
    let register = coordinator.call("register a witness", || {
        let (mut client, register) = (coordinator.rollout(), register.clone());
        async move { client.register(register).await }
    });
    register.await?;
    loop {
        let alive =
            v1::HeartbeatRequest { worker_id: worker_id.clone(), lease_ids: vec![], activities: vec![] };
        let beat = coordinator.call("keep the witness alive", || {
            let (mut client, alive) = (coordinator.rollout(), alive.clone());
            async move { client.heartbeat(alive).await }
        });
        beat.await?;
        let scrape = Scrape::of(&address)?;
        if scrape.sum("podium_coordinator_run_finished", &[]) > 0.0 {
            return Ok(scrape);
        }
        ensure!(start.elapsed() < PATIENCE, "the run is not complete after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_counts_add_up_while_workers_join_and_leave() -> Result<()> {
    let run = Run::embedded(&[
        &format!("run.steps={STEPS}"),
        &format!("rollout.prompts_per_step={PROMPTS}"),
        "run.record_groups=true",
        "rollout.prompts_per_lease=4",
        "rollout.refill_attempts=1",
        "evaluation.users=16",
        "evaluation.every_steps=0",
        "network.heartbeat_interval_ms=200",
        "network.lease_deadline_ms=1000",
    ])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let mut learner = run.learner("learner", 0, 1)?;
    let mut known = BTreeSet::new();
    let mut before: Option<Guest> = None;
    for number in 0..GUESTS {
        // The next guest joins before the previous one disconnects, so that there is always a worker.
        let guest = join(&run, &format!("guest-{number}"), &mut known).await?;
        if let Some(before) = before.replace(guest) {
            leave(&run, before, Way::of(number)).await?;
        }
    }
    let mut last = run.worker("last")?;
    if let Some(before) = before {
        leave(&run, before, Way::Told).await?;
    }
    let steps_then = run.status().await?.step;
    ensure!(steps_then < STEPS, "the run was over before the last guest had left");
    let scrape = last_scrape(&run).await?;
    for process in [&mut learner, &mut last, &mut coordinator] {
        process.wait_for_success()?;
    }

    let count = |what: &str| scrape.sum(&format!("podium_coordinator_groups{what}_total"), &[]);
    let outcome = |name| scrape.sum("podium_coordinator_groups_total", &[("outcome", name)]);
    let [accepted, repeated, refused, failed] = ["accepted", "repeated", "refused", "failed"].map(outcome);
    let (submitted, used, discarded) = (count("_submitted"), count("_used"), count("_discarded"));
    let told = format!(
        "submitted {submitted}: accepted {accepted}, repeated {repeated}, refused {refused}, failed {failed}; used {used}, \
         discarded {discarded}"
    );
    eprintln!("{told}; {steps_then} steps while guests joined and left");
    let same = |a: f64, b: f64| (a - b).abs() < 0.5;
    ensure!(same(submitted, accepted + repeated + refused + failed), "{told}");
    ensure!(same(used, (STEPS * PROMPTS) as f64), "{told}");
    ensure!(same(accepted + count("_recovered"), used + discarded), "{told}");
    ensure!(
        scrape.sum("podium_coordinator_groups_waiting", &[]) == 0.0,
        "groups are waiting after the end: {told}"
    );
    ensure!(
        scrape.sum("podium_coordinator_workers_lost_total", &[]) >= 9.0,
        "killed and silent workers count"
    );
    let recorded = rows(&run.out().join("groups.jsonl"))?;
    let names = recorded.iter().map(|row| (row["step"].as_u64(), row["index"].as_u64()));
    let expected = (0..STEPS).flat_map(|step| (0..PROMPTS).map(move |index| (Some(step), Some(index))));
    ensure!(names.eq(expected), "groups are missing, duplicated or out of order");
    let reported: f64 = rows(&run.out().join("metrics.jsonl"))?
        .iter()
        .filter_map(|row| row["groups/discarded"].as_f64())
        .sum();
    ensure!(same(reported, discarded), "metrics.jsonl reports {reported} discarded groups: {told}");
    Ok(())
}
