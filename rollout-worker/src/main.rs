//! The command line of the rollout worker.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use podium_config::{Override, RunFile};
use podium_rollout_worker::{Ending, GenerateOptions, RankCatalogueOptions};
use podium_service::metrics_server::Endpoint;
use podium_service::startup::{self, Threads};
use podium_service::{environment, logs, shutdown};
use podium_transfer::{CoordinatorLocation, Credentials};
use tokio_util::sync::CancellationToken;

/// Samples groups of completions for a run's coordinator, until the run is over.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    work: Option<WorkOptions>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(GenerateOptions),
    RankCatalogue(RankCatalogueOptions),
}

#[derive(Debug, Args)]
struct WorkOptions {
    /// The run file, the same as the coordinator's.
    #[arg(long, value_name = "RUN.toml")]
    run_file: PathBuf,
    /// Address of the coordinator, host:port; default: the environment's `PODIUM_COORDINATOR`, then the run file's
    /// network.coordinator.
    #[arg(long, value_name = "ADDRESS")]
    coordinator: Option<String>,
    /// Read the coordinator's address from the run folder and wait for it; also `PODIUM_COORDINATOR_FROM`.
    #[arg(long, value_name = "RUN_FOLDER", conflicts_with = "coordinator")]
    coordinator_from: Option<PathBuf>,
    /// Folder for policy versions. Workers of one host may share it; each version is then downloaded once.
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// cpu, cuda, cuda:1, or auto for a GPU if there is one; default: the run file's `launch.rollout_device`.
    #[arg(long)]
    device: Option<String>,
    /// Address on which to serve metrics and health, host:port; port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    metrics_listen: String,
    /// HOST:PORT under which Prometheus reaches the metrics; default: the listening port. The coordinator lists the port
    /// under the address of this process's connection, whatever the host.
    #[arg(long, value_name = "HOST[:PORT]")]
    metrics_advertise: Option<String>,
    /// On SIGTERM, time limit for finishing the current lease.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    leave_within_seconds: u64,
    /// Exit code after a graceful shutdown before the end of the run. A supervisor that restarts every worker of an
    /// unfinished run sets it to distinguish this from the end of the run, which exits with 0.
    #[arg(long, value_name = "CODE", default_value_t = 0)]
    shutdown_exit_code: u8,
    /// Sets a key of the run file: section.key=value. Can be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<Override>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::start();
    let result = startup::check().map_err(anyhow::Error::from).and_then(|()| match (cli.command, cli.work) {
        (Some(Command::Generate(options)), _) => {
            environment::prepare_alone(false, options.threads as usize)?;
            podium_rollout_worker::generate(&options)?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(Command::RankCatalogue(options)), _) => {
            let run_file = RunFile::load(&options.run_file, &options.overrides)?;
            environment::prepare_alone(run_file.run.portable, run_file.rollout.threads as usize)?;
            podium_rollout_worker::rank_catalogue(&run_file, &options)?;
            Ok(ExitCode::SUCCESS)
        }
        (None, Some(options)) => start(&options),
        (None, None) => Err(anyhow::anyhow!("--run-file and --cache are required; see --help")),
    });
    result.unwrap_or_else(|error| {
        tracing::error!("{}", logs::describe(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn start(options: &WorkOptions) -> anyhow::Result<ExitCode> {
    let run_file = RunFile::load(&options.run_file, &options.overrides)?;
    environment::prepare(run_file.run.portable)?;
    // One thread for the session and one for reading and checksumming files, so that heartbeats are never delayed.
    let runtime = startup::runtime(Threads::Some(2))?;
    let result = runtime.block_on(work(options, &run_file));
    // Remaining jobs (a file being read) are not needed any more.
    runtime.shutdown_background();
    Ok(match result? {
        Ending::RunOver(_) => ExitCode::SUCCESS,
        Ending::ShutDown => ExitCode::from(options.shutdown_exit_code),
    })
}

async fn work(command: &WorkOptions, run_file: &RunFile) -> anyhow::Result<Ending> {
    let stop = shutdown::on_signal().context("cannot listen for signals")?;
    let endpoint = Endpoint::start(&command.metrics_listen, Vec::new(), CancellationToken::new()).await?;
    podium_rollout_worker::describe_metrics();
    tracing::info!("metrics at http://{}/metrics", endpoint.address());
    let coordinator = CoordinatorLocation::choose(
        command.coordinator.as_deref(),
        command.coordinator_from.as_deref(),
        &run_file.network,
    );
    let options = podium_rollout_worker::Options {
        credentials: Credentials::choose(&coordinator, &command.run_file, &run_file.network),
        coordinator,
        cache: command.cache.clone(),
        device: command.device.clone().unwrap_or_else(|| run_file.launch.rollout_device.clone()),
        shutdown_deadline: Duration::from_secs(command.leave_within_seconds),
        metrics_address: endpoint.announced(command.metrics_advertise.as_deref())?,
        shared: None,
    };
    podium_rollout_worker::run(run_file, &options, stop, || endpoint.set_ready(true)).await
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("worker --run-file run.toml --cache c --set run.seed=3 --coordinator h:1").unwrap();
        assert_eq!(cli.work.unwrap().overrides.len(), 1);
        let cli = parse("worker generate --model m --input i --output o --greedy --top-k 3").unwrap();
        assert!(matches!(cli.command, Some(Command::Generate(_))) && cli.work.is_none());
        assert!(parse("worker --cache c").is_err());
    }
}
