//! The course of a load test: start, registration, warm-up, measurement, end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podium_config::RunFile;
use podium_grpo::PolicyVersion;
use podium_service::startup::{self, Threads};
use podium_transfer::{Limits, manifest};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::completions::Completions;
use super::coordinator::CoordinatorProcess;
use super::error::{Error, PeerError};
use super::learner::Learner;
use super::peers::Peers;
use super::tally::{Latencies, Tally};
use super::usage::{self, Usage};
use super::worker::Worker;
use crate::processes::Service;
use crate::run_folder::RunFolder;

/// Time limit of the workers' registration.
const REGISTRATION: Duration = Duration::from_secs(120);
/// Time between the registration of all workers and the measurement.
const WARM_UP: Duration = Duration::from_secs(3);

/// The load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Number of simulated workers.
    pub(crate) workers: u32,
    /// Groups per second of all workers; 0: as fast as the coordinator replies.
    pub(crate) rate: f64,
    /// Tokens of a completion.
    pub(crate) tokens: u32,
    /// Duration of the measurement.
    pub(crate) duration: Duration,
}

/// The measurements.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Duration of the measurement.
    pub(crate) seconds: f64,
    /// Latencies of leases that were granted without a wait for work.
    pub(crate) lease: Latencies,
    /// Latencies of submissions.
    pub(crate) submit: Latencies,
    /// Stored groups of training steps.
    pub(crate) groups: u64,
    /// Results whose slots were filled already.
    pub(crate) repeated: u64,
    /// Refused results.
    pub(crate) refused: u64,
    /// Requests for a lease that found no work.
    pub(crate) waits: u64,
    /// Lost leases, and registrations that the coordinator had forgotten.
    pub(crate) lost: u64,
    /// Committed steps.
    pub(crate) steps: u64,
    /// Seconds of processor time of the coordinator during the measurement.
    pub(crate) cpu_seconds: f64,
    /// Seconds of processor time of the simulated peers during the measurement.
    pub(crate) peers_cpu_seconds: f64,
    /// Largest resident memory of the coordinator, in bytes.
    pub(crate) peak_bytes: u64,
}

/// Starts the coordinator of a run whose folder contains the run file, loads it, and stops it. `None` if `stop` was
/// cancelled before the end.
pub(crate) async fn measure(
    coordinator: Service,
    run: &RunFile,
    start: PathBuf,
    folder: &RunFolder,
    plan: Plan,
    stop: &CancellationToken,
) -> Result<Option<Measured>, Error> {
    usage::check_open_files(plan.workers)?;
    let (mut process, announced) = CoordinatorProcess::start(coordinator, folder).await?;
    let load = || {
        let model_fingerprint = manifest::fingerprint(&start)?;
        let peers = Arc::new(Peers {
            address: announced.reachable_here(),
            credentials: folder.credentials(&run.network),
            limits: Limits::of(&run.network),
            run_hash: run.hash(),
            completions: Completions::load(run, &start, plan.tokens)?,
            group_size: run.rollout.group_size,
            seconds_per_group: if plan.rate > 0.0 { f64::from(plan.workers) / plan.rate } else { 0.0 },
            tally: Tally::default(),
            stop: stop.child_token(),
            model_fingerprint,
        });
        let learner = Learner {
            manifest: manifest::describe(
                &start,
                PolicyVersion::START,
                &peers.run_hash,
                &peers.model_fingerprint,
            )?,
            peers: peers.clone(),
            folder: start,
            checkpoint_every_steps: run.learner.checkpoint_every_steps.max(1),
            heartbeat_interval: Duration::from_millis(run.network.heartbeat_interval_ms),
        };
        Ok(Simulation { plan, pid: announced.pid, peers, learner })
    };
    let measured = match load() {
        Ok(simulation) => tokio::select! {
            measured = on_threads(simulation) => measured,
            error = process.failed() => Err(error),
            () = stop.cancelled() => Ok(None),
        },
        Err(error) => Err(error),
    };
    process.stop().await;
    measured
}

/// Runs a simulation on threads of its own: this thread must only start processes.
async fn on_threads(simulation: Simulation) -> Result<Option<Measured>, Error> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let measured = startup::runtime(Threads::EveryCore)
            .map_err(Error::from)
            .and_then(|runtime| runtime.block_on(simulation.run()));
        // The receiver is gone if the load test was ended.
        drop(sender.send(measured));
    });
    receiver.await.expect("the simulation does not panic").map(Some)
}

struct Simulation {
    plan: Plan,
    /// The coordinator's process.
    pid: u32,
    peers: Arc<Peers>,
    learner: Learner,
}

impl Simulation {
    async fn run(self) -> Result<Measured, Error> {
        let Self { plan, pid, peers, learner } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { ("learner rank", learner.run().await) });
        let (sender, mut registered) = mpsc::channel(64);
        for number in 0..plan.workers {
            let (peers, sender) = (peers.clone(), sender.clone());
            let phase = f64::from(number) / f64::from(plan.workers);
            tasks.spawn(async move { ("worker", Worker::run(peers, phase, sender).await.map(|()| None)) });
        }
        drop(sender);
        let measured = tokio::select! {
            measured = measure_peers(&peers, plan, pid, &mut registered) => measured,
            error = failure(&mut tasks) => Err(error),
        };
        peers.stop.cancel();
        while tasks.join_next().await.is_some() {}
        measured
    }
}

/// The name of a peer, and its outcome: the reason of the run's end, if it is over.
type Ended = (&'static str, Result<Option<String>, PeerError>);

/// Waits for a peer that ends before it is stopped, and returns why.
async fn failure(tasks: &mut JoinSet<Ended>) -> Error {
    loop {
        match tasks.join_next().await {
            Some(Ok((peer, Err(source)))) => return Error::Peer { peer, source: Box::new(source) },
            Some(Ok((_, Ok(Some(reason))))) => return Error::RunOver { reason },
            // A worker ends together with the run, whose reason the rank reports.
            Some(Ok((_, Ok(None)))) => {}
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}

async fn measure_peers(
    peers: &Peers,
    plan: Plan,
    pid: u32,
    registered: &mut mpsc::Receiver<()>,
) -> Result<Measured, Error> {
    let mut count = 0;
    let all = async {
        while registered.recv().await.is_some() {
            count += 1;
        }
    };
    if tokio::time::timeout(REGISTRATION, all).await.is_err() {
        let (workers, seconds) = (plan.workers, REGISTRATION.as_secs());
        return Err(Error::NotRegistered { registered: count, workers, seconds });
    }
    tokio::time::sleep(WARM_UP).await;
    let own_pid = std::process::id();
    let (before, own_before) = (Usage::of(pid)?, Usage::of(own_pid)?);
    let began = Instant::now();
    peers.tally.set_counting(true);
    tokio::time::sleep(plan.duration).await;
    peers.tally.set_counting(false);
    let seconds = began.elapsed().as_secs_f64();
    let (after, own_after) = (Usage::of(pid)?, Usage::of(own_pid)?);
    let tally = &peers.tally;
    let [lease, submit] = tally.take_latencies();
    Ok(Measured {
        seconds,
        lease,
        submit,
        groups: tally.groups.get(),
        repeated: tally.repeated.get(),
        refused: tally.refused.get(),
        waits: tally.waits.get(),
        lost: tally.lost.get(),
        steps: tally.steps.get(),
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        peers_cpu_seconds: own_after.cpu_seconds - own_before.cpu_seconds,
        peak_bytes: after.peak_bytes,
    })
}
