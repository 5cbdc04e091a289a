//! `podium-colocated`: the learner rank and the rollout worker of a run in one process, with one copy of the base
//! weights.
//!
//! Each role has its own device thread; both compute in turns ([`SharedDevice`]). If one role fails, the other shuts
//! down gracefully, and the process exits with the error.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use podium_config::{Override, RunFile};
use podium_learner::train::{self, Ending};
use podium_model::SharedDevice;
use podium_service::metrics_server::Endpoint;
use podium_service::startup::{self, Threads};
use podium_service::{environment, logs, shutdown};
use podium_transfer::{CoordinatorLocation, Credentials};
use tokio_util::sync::CancellationToken;

/// Runs the learner rank and the worker of a run in one process, with one copy of the base weights. Exits with 0 when
/// the run is over, and with 75 after a graceful shutdown before that; start it again to resume from its checkpoint.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The run file, the same as the coordinator's. It must train an adapter, with equal learner.threads and
    /// rollout.threads.
    #[arg(long, value_name = "RUN.toml")]
    run_file: PathBuf,
    /// Address of the coordinator, host:port; default: the environment's `PODIUM_COORDINATOR`, then the run file's
    /// network.coordinator.
    #[arg(long, value_name = "ADDRESS")]
    coordinator: Option<String>,
    /// Read the coordinator's address from the run folder and wait for it; also `PODIUM_COORDINATOR_FROM`.
    #[arg(long, value_name = "RUN_FOLDER", conflicts_with = "coordinator")]
    coordinator_from: Option<PathBuf>,
    /// Folder for checkpoints and policy files of the learner.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Folder for policy versions of the worker.
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// cpu, cuda, cuda:1, or auto for a GPU if there is one; default: the run file's `launch.learner_device`.
    #[arg(long)]
    device: Option<String>,
    /// Address on which to serve metrics and health, host:port; port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    metrics_listen: String,
    /// HOST:PORT under which Prometheus reaches the metrics; default: the listening port. The coordinator lists the port
    /// under the address of this process's connection, whatever the host.
    #[arg(long, value_name = "HOST[:PORT]")]
    metrics_advertise: Option<String>,
    /// On SIGTERM, time limit for finishing the current lease, and for submitting the finished step.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    leave_within_seconds: u64,
    /// Sets a key of the run file: section.key=value. Can be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<Override>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::start();
    match startup::check().map_err(anyhow::Error::from).and_then(|()| start(&cli)) {
        Ok(Ending::RunOver) => ExitCode::SUCCESS,
        Ok(Ending::Stopped) => ExitCode::from(shutdown::STOPPED),
        Err(error) => {
            tracing::error!("{}", logs::describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: &Cli) -> anyhow::Result<Ending> {
    let mut overrides = cli.overrides.clone();
    // The run file is checked for this mode.
    overrides.push(Override::new("launch.colocate", "process"));
    let file = RunFile::load(&cli.run_file, &overrides)?;
    anyhow::ensure!(
        file.run.steps > 0,
        "run.steps is 0: expected a run that trains; start podium-rollout-worker for an evaluation"
    );
    environment::prepare(file.run.portable)?;
    let runtime = startup::runtime(Threads::EveryCore)?;
    let result = runtime.block_on(run(cli, file));
    // Remaining jobs (a file being read) are not needed any more.
    runtime.shutdown_background();
    result
}

async fn run(cli: &Cli, file: RunFile) -> anyhow::Result<Ending> {
    let stop = shutdown::on_signal().context("cannot listen for signals")?;
    let endpoint = Endpoint::start(&cli.metrics_listen, Vec::new(), CancellationToken::new()).await?;
    podium_learner::metrics::describe();
    podium_rollout_worker::describe_metrics();
    tracing::info!("metrics at http://{}/metrics", endpoint.address());
    let coordinator = CoordinatorLocation::choose(
        cli.coordinator.as_deref(),
        cli.coordinator_from.as_deref(),
        &file.network,
    );
    let credentials = Credentials::choose(&coordinator, &cli.run_file, &file.network);
    let device = cli.device.clone().unwrap_or_else(|| file.launch.learner_device.clone());
    let metrics_address = endpoint.announced(cli.metrics_advertise.as_deref())?;
    let shutdown_deadline = Duration::from_secs(cli.leave_within_seconds);
    let shared = SharedDevice::default();
    let learner = train::Options {
        coordinator: coordinator.clone(),
        credentials: credentials.clone(),
        state: cli.state.clone(),
        rank: 0,
        world_size: 1,
        device: device.clone(),
        collective_listen: "127.0.0.1:0".into(),
        collective_advertise: None,
        shutdown_deadline,
        metrics_address: metrics_address.clone(),
        shared: Some(shared.clone()),
    };
    let worker = podium_rollout_worker::Options {
        coordinator,
        credentials,
        cache: cli.cache.clone(),
        device,
        shutdown_deadline,
        metrics_address,
        shared: Some(shared),
    };
    both(file, learner, worker, endpoint, stop).await
}

/// Runs both roles until the run is over, `stop` is cancelled, or one role fails.
async fn both(
    file: RunFile,
    learner: train::Options,
    worker: podium_rollout_worker::Options,
    endpoint: Endpoint,
    stop: CancellationToken,
) -> anyhow::Result<Ending> {
    let readiness =
        Arc::new(Readiness { endpoint, learner: AtomicBool::new(false), worker: AtomicBool::new(false) });
    let work = {
        let (file, stop, readiness) = (file.clone(), stop.clone(), readiness.clone());
        async move {
            // Also stops the learner if this task panics.
            let failed = stop.clone().drop_guard();
            let ready = || readiness.set(&readiness.worker);
            let ending = podium_rollout_worker::run(&file, &worker, stop, ready).await?;
            failed.disarm();
            Ok::<_, anyhow::Error>(ending)
        }
    };
    let work = tokio::spawn(work);
    let trained = train::run(&file, &learner, stop.clone(), || readiness.set(&readiness.learner)).await;
    if trained.is_err() {
        stop.cancel();
    }
    let worked = match work.await {
        Ok(worked) => worked,
        Err(ended) => Err(anyhow::anyhow!("the worker's task has failed: {ended}")),
    };
    match (trained, worked) {
        // The worker is needed after the last step, for the evaluation of the last policy.
        (Ok(Ending::RunOver), Ok(podium_rollout_worker::Ending::RunOver(_))) => Ok(Ending::RunOver),
        (Ok(_), Ok(_)) => Ok(Ending::Stopped),
        (Ok(_), Err(error)) => Err(error.context("the worker failed")),
        (Err(error), worked) => {
            if let Err(other) = worked {
                tracing::error!("the worker failed too: {}", logs::describe(other.as_ref()));
            }
            Err(anyhow::Error::from(error).context("the learner failed"))
        }
    }
}

/// The process is ready once both roles are.
struct Readiness {
    endpoint: Endpoint,
    learner: AtomicBool,
    worker: AtomicBool,
}

impl Readiness {
    /// Sets one role ready.
    fn set(&self, role: &AtomicBool) {
        role.store(true, Ordering::SeqCst);
        if self.learner.load(Ordering::SeqCst) && self.worker.load(Ordering::SeqCst) {
            self.endpoint.set_ready(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("colocated --run-file run.toml --state s --cache c --set run.seed=3").unwrap();
        assert_eq!(cli.overrides.len(), 1);
        assert!(parse("colocated --run-file run.toml --state s").is_err());
    }
}
