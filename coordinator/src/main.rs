//! The process `podium-coordinator`.

// Printing macros panic if the output is closed: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use podium_config::{Override, RunFile};
use podium_coordinator::discovery::Discovery;
use podium_coordinator::dropping;
use podium_coordinator::run::{self, ExitReason, Options, Running};
use podium_coordinator::store::versions::Dropped;
use podium_grpo::PolicyVersion;
use podium_service::metrics_server::Endpoint;
use podium_service::startup::{self, Threads};
use podium_service::{logs, shutdown};
use tokio_util::sync::CancellationToken;

/// Coordinates a run: leases prompts to rollout workers, scores completions, serves groups to the learner, stores the run.
///
/// A restart with the same --out continues the run. The exit code is 0 when the run is complete, and 75 after a graceful
/// shutdown before that.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<Arguments>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Drop a policy version of a stopped run, all later versions, and everything that was sampled from them; a restart
    /// continues the run from there.
    DropVersion {
        /// The run's output folder.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The version's number, at least 1.
        #[arg(long, value_name = "N")]
        version: u64,
    },
}

#[derive(Debug, Args)]
struct Arguments {
    /// The run file.
    #[arg(long, value_name = "FILE")]
    run_file: PathBuf,
    /// The run's output folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Address to listen on, host:port [default: network.listen of the run file, or the previous port].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address for other hosts, as written to coordinator.json in the output folder [default: this host's name if it listens
    /// on all interfaces, otherwise the address that it listens on].
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Address of the metrics and of the list of scrape targets, host:port [default: `network.metrics_listen` of the run
    /// file].
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// Address of the metrics for other hosts [default: the address of the request if --metrics-listen covers all interfaces].
    #[arg(long, value_name = "HOST[:PORT]")]
    metrics_advertise: Option<String>,
    /// Sets a key of the run file.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<Override>,
}

/// Time between two attempts while the disk is full.
const WAIT_FOR_SPACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::start();
    let work = || match (cli.command, cli.run) {
        (Some(Command::DropVersion { out, version }), _) => {
            drop_version(&out, PolicyVersion(version)).map(|()| ExitReason::Complete)
        }
        (None, Some(arguments)) => startup::runtime(Threads::EveryCore)?.block_on(coordinate(arguments)),
        (None, None) => Err(anyhow::anyhow!("--run-file and --out are missing; see --help")),
    };
    match startup::check().map_err(anyhow::Error::from).and_then(|()| work()) {
        Ok(ExitReason::Complete | ExitReason::Drained { .. }) => ExitCode::SUCCESS,
        Ok(ExitReason::Stopped) => ExitCode::from(shutdown::STOPPED),
        Err(error) => {
            tracing::error!("{}", logs::describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn drop_version(out: &Path, version: PolicyVersion) -> Result<()> {
    let Dropped { steps: (before, now), groups, evaluations } = dropping::drop_version(out, version)?;
    podium_service::output_line!(
        "dropped {version} and the versions after it: {} of {} committed steps remain, {groups} groups and {evaluations} \
         evaluations are repeated; start the run again with the same --out",
        now.0,
        before.0
    );
    Ok(())
}

async fn coordinate(arguments: Arguments) -> Result<ExitReason> {
    let Arguments { run_file, out, listen, advertise, metrics_listen, metrics_advertise, overrides } =
        arguments;
    let stop = shutdown::on_signal()?;
    let file = RunFile::load(&run_file, &overrides)?;
    let base = run_file.parent().map(PathBuf::from).unwrap_or_default();
    let metrics_listen = metrics_listen.as_ref().unwrap_or(&file.network.metrics_listen);
    let discovery = Discovery::default();
    let metrics = Endpoint::start(metrics_listen, vec![discovery.page()], stop.child_token()).await?;
    discovery.set_own(metrics.announced(metrics_advertise.as_deref())?);
    podium_coordinator::metrics::describe();
    tracing::info!(
        "metrics on http://{0}/metrics, all processes to scrape on http://{0}/targets",
        metrics.address()
    );
    let options =
        Options { file, base, out, listen, advertise, metrics_address: Some(metrics.address()), discovery };
    let Some(running) = start(options, &stop).await? else { return Ok(ExitReason::Stopped) };
    metrics.set_ready(true);
    let outcome = running.finished().await?;
    match &outcome {
        ExitReason::Complete => tracing::info!("the run is complete"),
        ExitReason::Drained { reason } => {
            tracing::info!("the run ended early ({reason}); a start with the same --out continues it");
        }
        ExitReason::Stopped => {
            let signal = shutdown::received().unwrap_or("its owner");
            tracing::info!("stopped by {signal}; a start with the same --out continues the run");
        }
    }
    Ok(outcome)
}

/// Starts the coordinator; on a full disk, as soon as there is space. Returns `None` if it was stopped
/// before.
async fn start(options: Options, stop: &CancellationToken) -> Result<Option<Running>> {
    let mut named = false;
    loop {
        match run::start(options.clone(), stop.clone()).await {
            Err(error) if error.is_full() => {
                if !std::mem::replace(&mut named, true) {
                    tracing::error!("{}: waiting for space on the disk", logs::describe(&error));
                }
            }
            started => return Ok(Some(started?)),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(WAIT_FOR_SPACE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("coordinator --run-file run.toml --out o --set run.seed=3").unwrap();
        assert_eq!(cli.run.unwrap().overrides.len(), 1);
        let cli = parse("coordinator drop-version --out o --version 3").unwrap();
        assert!(matches!(cli.command, Some(Command::DropVersion { version: 3, .. })) && cli.run.is_none());
        assert!(parse("coordinator --out o").is_err());
    }
}
