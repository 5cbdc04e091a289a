//! The process `podium-coordinator`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use podium_config::{Override, RunFile};
use podium_coordinator::run::{self, Options, Outcome};
use podium_runtime::metrics_server::Endpoint;
use podium_runtime::{logs, shutdown};

/// Coordinates a run: leases prompts to rollout workers, scores what comes back, feeds the learner, keeps everything.
///
/// Stopped and started again with the same --out, it continues where it was.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The run file.
    #[arg(long, value_name = "FILE")]
    run_file: PathBuf,
    /// The run's output folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where to listen, host:port. Without it: network.listen of the run file, or the port of before.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where to serve metrics, host:port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    metrics_listen: String,
    /// Sets a key of the run file.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<Override>,
}

#[tokio::main]
async fn main() {
    logs::start();
    if let Err(error) = coordinate(Arguments::parse()).await {
        tracing::error!("{}", logs::describe(error.as_ref()));
        std::process::exit(1);
    }
}

async fn coordinate(arguments: Arguments) -> Result<()> {
    let Arguments { run_file, out, listen, metrics_listen, overrides } = arguments;
    let stop = shutdown::on_signal()?;
    let file = RunFile::load(&run_file, &overrides)?;
    let base = run_file.parent().map(PathBuf::from).unwrap_or_default();
    let metrics = Endpoint::start(&metrics_listen, stop.child_token()).await?;
    podium_coordinator::metrics::describe();
    tracing::info!("metrics on http://{}/metrics", metrics.address());
    let options = Options { file, base, out, listen, metrics_address: Some(metrics.address()) };
    let running = run::start(options, stop).await?;
    metrics.set_ready(true);
    let how = match running.finished().await? {
        Outcome::Complete => "the run is complete",
        Outcome::Drained => "the run was ended early; a start with the same --out continues it",
        Outcome::Stopped => "stopped; a start with the same --out continues the run",
    };
    tracing::info!("{how}");
    Ok(())
}
