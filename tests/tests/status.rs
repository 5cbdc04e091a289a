//! `podium status` and the progress of a run report the true state: an unresponsive coordinator, a silent rank, a
//! stalled lease, and the reason of the end of a run.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_config::RunFile;
use podium_proto::PROTOCOL_VERSION;
use podium_proto::v1::{self, lease_response::Answer};
use podium_tests::launched::{Launched, status, undisturbed};
use podium_tests::{PATIENCE, Process, Run, binary, path_text};

const STEPS: u64 = 4;
const SETTINGS: [&str; 5] =
    ["run.steps=4", "run.seed=3", "rollout.prompts_per_step=16", "evaluation.users=16", "launch.workers=1"];
/// Deadlines that pass within a test.
const SOON: [&str; 2] = ["network.heartbeat_interval_ms=200", "network.lease_deadline_ms=2000"];
/// Exit codes of `podium`.
const STOPPED: i32 = podium_service::shutdown::STOPPED as i32;
const UNAVAILABLE: i32 = 69;

/// The hash of the final weights of every run here.
fn expected() -> &'static str {
    static EXPECTED: OnceLock<String> = OnceLock::new();
    EXPECTED.get_or_init(|| undisturbed(&SETTINGS, STEPS).expect("an undisturbed run ends"))
}

fn says(output: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(output.contains(part), "{part:?} is not in:\n{output}");
    }
    Ok(())
}

/// Waits until `podium status` exits with a code, and returns its output.
fn wait_for_status(run: &Run, code: i32) -> Result<String> {
    let start = Instant::now();
    loop {
        let (found, said) = status(run)?;
        if found == Some(code) {
            return Ok(said);
        }
        ensure!(start.elapsed() < PATIENCE, "podium status exits with {found:?}, not with {code}:\n{said}");
    }
}

#[tokio::test]
async fn a_coordinator_that_hangs_does_not_answer() -> Result<()> {
    let launched = Launched::new(&SETTINGS)?;
    let mut podium = launched.start("podium")?;
    launched.reach(1).await?;
    launched.signal_coordinator(Signal::SIGSTOP)?;
    let (code, said) = status(&launched.run)?;
    launched.signal_coordinator(Signal::SIGCONT)?;
    ensure!(code == Some(UNAVAILABLE), "{code:?}: {said}");
    says(&said, &["does not answer", "coordinator.log"])?;
    ensure!(!said.contains("not running"), "{said}");
    podium.wait_for_success()?;
    launched.check_weights(STEPS, expected())?;
    let (code, said) = status(&launched.run)?;
    ensure!(code == Some(0) && said.contains("finished"), "{code:?}: {said}");
    Ok(())
}

#[tokio::test]
async fn a_coordinator_without_descriptors_does_not_answer() -> Result<()> {
    let run = Run::embedded(&SETTINGS)?;
    let out = run.out();
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=96:96").arg(binary("podium-coordinator"));
    limited.args(["--run-file", run.run_file(), "--out", path_text(&out)]);
    let mut coordinator = Process::start("coordinator", limited, run.folder())?;
    run.wait_until("the coordinator", |_| true).await?;
    let address = run.address()?;
    let connections = (0..128).map(|_| TcpStream::connect(&address)).collect::<Result<Vec<_>, _>>()?;
    let said = wait_for_status(&run, UNAVAILABLE)?;
    says(&said, &["does not answer"])?;
    drop(connections);
    says(&wait_for_status(&run, 0)?, &["starting"])?;
    let (mut worker, mut learner) = (run.worker("worker")?, run.learner("learner", 0, 1)?);
    for process in [&mut worker, &mut learner, &mut coordinator] {
        process.wait_for_success()?;
    }
    ensure!(run.weights_hash(STEPS)? == expected(), "the weights differ from those of an undisturbed run");
    Ok(())
}

#[tokio::test]
async fn an_unused_address_means_not_running() -> Result<()> {
    let run = Run::embedded(&SETTINGS)?;
    let mut coordinator = run.coordinator("coordinator")?;
    coordinator.signal(Signal::SIGKILL)?;
    coordinator.wait()?;
    let (code, said) = status(&run)?;
    ensure!(code == Some(0) && said.contains("not running, 0 of 4 steps"), "{code:?}: {said}");
    let mut coordinator = run.coordinator("coordinator again")?;
    coordinator.signal(Signal::SIGTERM)?;
    coordinator.wait_for_code(STOPPED)?;
    let (code, said) = status(&run)?;
    ensure!(
        code == Some(0) && said.contains("not running (stopped by SIGTERM), 0 of 4 steps"),
        "{code:?}: {said}"
    );
    Ok(())
}

#[tokio::test]
async fn a_stopped_or_dead_rank_is_named() -> Result<()> {
    let settings = [&SETTINGS[..], &SOON].concat();
    let together = |run: &Run, rank: u32| run.learner(&format!("rank-{rank}"), rank, 2);
    let quiet = Run::embedded(&settings)?;
    let mut processes = vec![quiet.coordinator("coordinator")?, quiet.worker("worker")?];
    processes.extend([together(&quiet, 0)?, together(&quiet, 1)?]);
    for process in processes.iter_mut().rev() {
        process.wait_for_success()?;
    }

    let run = Run::embedded(&settings)?;
    let mut coordinator = run.coordinator("coordinator")?;
    let (mut worker, mut first, second) = (run.worker("worker")?, together(&run, 0)?, together(&run, 1)?);
    run.wait_until("a step", |status| status.step >= 1).await?;
    let named = |status: &v1::RunStatus| {
        let silent = |rank: &v1::RankStatus| rank.rank == 1 && rank.silent;
        let told = |warning: &String| warning.contains("learner rank 1 has sent no report for 2 s");
        status.ranks.iter().any(silent) && status.warnings.iter().any(told)
    };
    second.signal(Signal::SIGSTOP)?;
    run.wait_until("the stopped rank to be named", named).await?;
    says(&status(&run)?.1, &["rank        1: silent", "rank        0: joined"])?;
    second.signal(Signal::SIGCONT)?;
    run.wait_until("the rank to be heard again", |status| !named(status)).await?;
    second.signal(Signal::SIGKILL)?;
    run.wait_until("the dead rank to be named", named).await?;
    let mut second = run.learner("rank-1-again", 1, 2)?;
    for process in [&mut first, &mut second, &mut worker, &mut coordinator] {
        process.wait_for_success()?;
    }
    ensure!(
        run.weights_hash(STEPS)? == quiet.weights_hash(STEPS)?,
        "the weights differ from an undisturbed run's"
    );
    Ok(())
}

/// A worker that takes a lease and extends it, but samples nothing.
struct Idler {
    coordinator: podium_transfer::Coordinator,
    id: String,
    lease: String,
}

impl Idler {
    async fn with_a_lease(run: &Run) -> Result<Self> {
        let (coordinator, id) = (run.client()?, uuid::Uuid::new_v4().to_string());
        let register = v1::RegisterRequest {
            worker_id: id.clone(),
            run_hash: RunFile::load(Path::new(run.run_file()), &[])?.hash(),
            protocol: PROTOCOL_VERSION,
            ..v1::RegisterRequest::default()
        };
        let call = coordinator.call("register", || {
            let (mut client, register) = (coordinator.rollout(), register.clone());
            async move { client.register(register).await }
        });
        call.await?;
        let ask = v1::LeaseRequest { worker_id: id.clone(), wait_ms: 5_000 };
        let call = coordinator.call("lease", || {
            let (mut client, ask) = (coordinator.rollout(), ask.clone());
            async move { client.lease(ask).await }
        });
        let Some(Answer::Lease(lease)) = call.await?.answer else { anyhow::bail!("there is no lease") };
        Ok(Self { coordinator, id, lease: lease.lease_id })
    }

    async fn beat(&self) -> Result<()> {
        let alive = v1::HeartbeatRequest {
            worker_id: self.id.clone(),
            lease_ids: vec![self.lease.clone()],
            activities: vec![],
        };
        let call = self.coordinator.call("send a heartbeat", || {
            let (mut client, alive) = (self.coordinator.rollout(), alive.clone());
            async move { client.heartbeat(alive).await }
        });
        ensure!(call.await?.lost_lease_ids.is_empty(), "the lease was lost");
        Ok(())
    }

    /// Extends the lease. Returns only on an error.
    async fn idle(&self) -> Result<v1::RunStatus> {
        loop {
            self.beat().await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test]
async fn a_lease_without_progress_is_named() -> Result<()> {
    let run = Run::embedded(&[&SETTINGS[..], &SOON, &["rollout.prompts_per_lease=4"]].concat())?;
    let alone = undisturbed(&[&SETTINGS[..], &["rollout.prompts_per_lease=4"]].concat(), STEPS)?;
    let mut coordinator = run.coordinator("coordinator")?;
    let idler = Idler::with_a_lease(&run).await?;
    let (mut worker, mut learner) = (run.worker("worker")?, run.learner("learner", 0, 1)?);
    let named = run.wait_until("the lease to be named", |status| {
        let told = |warning: &String| warning.contains(&idler.id) && warning.contains("submits nothing");
        status.warnings.iter().any(told)
    });
    let named = tokio::select! {
        named = named => named?,
        failed = idler.idle() => failed?,
    };
    let oldest = named.oldest_lease.context("no lease is held")?;
    ensure!(oldest.worker_id == idler.id && oldest.stalled && oldest.work == "step 0", "{oldest:?}");
    says(&status(&run)?.1, &["oldest      lease of step 0, held by worker", "far longer than others"])?;
    // Without further heartbeats the lease is assigned to the other worker.
    for process in [&mut worker, &mut learner, &mut coordinator] {
        process.wait_for_success()?;
    }
    ensure!(run.weights_hash(STEPS)? == alone, "the weights differ from those of an undisturbed run");
    Ok(())
}

#[tokio::test]
async fn a_drain_reports_its_requester_and_reason() -> Result<()> {
    let launched = Launched::new(&SETTINGS)?;
    let mut podium = launched.start("podium")?;
    launched.reach(1).await?;
    let coordinator = launched.run.client()?;
    let drained = coordinator.call("drain the run", || {
        let mut client = coordinator.status();
        async move { client.drain(v1::DrainRequest { reason: "maintenance".into() }).await }
    });
    drained.await?;
    podium.wait_for_code(STOPPED)?;
    let why = "drained at the request of a client at 127.0.0.1: maintenance";
    says(&podium.output(), &[why, "to continue"])?;
    let (code, said) = status(&launched.run)?;
    ensure!(code == Some(0) && said.contains(&format!("not running ({why})")), "{code:?}: {said}");
    launched.start("again")?.wait_for_success()?;
    launched.check_weights(STEPS, expected())
}

#[test]
fn a_coordinator_killed_before_it_serves_is_restarted() -> Result<()> {
    let launched = Launched::new(&SETTINGS)?;
    // This folder has the built programs, except for a coordinator that is killed at its first start.
    let programs = launched.run.folder().join("programs");
    fs::create_dir(&programs)?;
    for name in ["podium-rollout-worker", "podium-learner"] {
        symlink(binary(name), programs.join(name))?;
    }
    fs::copy(binary("podium"), programs.join("podium"))?;
    let coordinator = programs.join("podium-coordinator");
    let (once, real) = (programs.join("once"), binary("podium-coordinator"));
    let script = format!(
        "#!/bin/sh\nif mkdir '{}'; then kill -9 $$; fi\nexec '{}' \"$@\"\n",
        path_text(&once),
        path_text(&real)
    );
    fs::write(&coordinator, script)?;
    fs::set_permissions(&coordinator, fs::Permissions::from_mode(0o755))?;
    let command = launched.command(Some(&programs.join("podium")));
    let mut podium = Process::start("podium", command, launched.run.folder())?;
    podium.wait_for_success()?;
    ensure!(once.exists(), "the coordinator was not killed");
    says(&podium.output(), &["coordinator died (SIGKILL) and is restarted"])?;
    launched.check_weights(STEPS, expected())
}
