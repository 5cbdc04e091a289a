//! The command line of the learner.

// Printing macros panic where the output is gone: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use podium_config::{Override, RunFile};
use podium_learner::collective::nccl;
use podium_learner::train::{self, Ending};
use podium_learner::{merge, metrics, replay, score, sft};
use podium_model::{LoadOptions, Precision, device};
use podium_service::metrics_server::Endpoint;
use podium_service::startup::{self, Threads};
use podium_service::{logs, notice, openmp, output, portable, shutdown};
use podium_transfer::Place;

/// Trains policies: GRPO steps of a run, and supervised fine-tuning; replays recorded groups, scores completions, merges adapters.
#[derive(Debug, Parser)]
#[command(name = "podium-learner", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Takes part in a run as a learner rank. Ends with 0 when the run is over, and with 75 when it was asked to leave before:
    /// started again, it goes on from its checkpoint.
    Train(Train),
    /// Fine-tunes a policy on a data set's demonstrations.
    Sft(Sft),
    /// Computes the log-probabilities of given completions.
    Score(Score),
    /// Trains on recorded groups.
    Replay(Replay),
    /// Works an adapter into the weights of its model.
    Merge(Merge),
}

#[derive(Debug, Args)]
struct Run {
    /// The run file.
    #[arg(long, value_name = "FILE")]
    run_file: PathBuf,
    /// Sets a key of the run file; can be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<Override>,
}

impl Run {
    fn load(&self) -> anyhow::Result<RunFile> {
        pinned(RunFile::load(&self.run_file, &self.overrides)?)
    }

    /// What the run file's template paths are relative to.
    fn folder(&self) -> &Path {
        self.run_file.parent().unwrap_or(Path::new("."))
    }
}

#[derive(Debug, Args)]
struct Train {
    #[command(flatten)]
    run: Run,
    /// Where the coordinator serves; the environment's `PODIUM_COORDINATOR` or the run file's network.coordinator otherwise.
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: Option<String>,
    /// Find the coordinator by what it announces in the run's folder, and wait for it; also `PODIUM_COORDINATOR_FROM`.
    #[arg(long, value_name = "RUN_FOLDER", conflicts_with = "coordinator")]
    coordinator_from: Option<PathBuf>,
    /// Folder for checkpoints and policy files.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// This rank, from 0.
    #[arg(long, default_value_t = 0)]
    rank: u32,
    /// Number of ranks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    world_size: u32,
    /// cpu, cuda, cuda:1, or auto for a GPU where there is one; the run file's choice otherwise.
    #[arg(long)]
    device: Option<String>,
    /// What ranks sum gradients with; the run file's network.collective otherwise.
    #[arg(long, value_name = "auto|nccl|tcp", value_parser = ["auto", "nccl", "tcp"])]
    collective: Option<String>,
    /// Where rank 0 listens for the other ranks.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    collective_listen: String,
    /// How the other ranks reach rank 0; this host's name, or the address listened on, otherwise.
    #[arg(long, value_name = "HOST[:PORT]")]
    collective_advertise: Option<String>,
    /// How long, when told to leave, to go on trying to hand the step in hand to the coordinator.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    leave_within_seconds: u64,
    /// Where to serve metrics.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    metrics_listen: String,
    /// Under which host, or host:port, Prometheus reaches the metrics; where --metrics-listen says all interfaces, that is
    /// the address that the coordinator sees.
    #[arg(long, value_name = "HOST[:PORT]")]
    metrics_advertise: Option<String>,
}

#[derive(Debug, Args)]
struct Sft {
    #[command(flatten)]
    run: Run,
    /// Where to write the policy.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The policy to start from; the run file's model.path otherwise.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Imitate the rows of this training file (`podium-curator mix` writes it) and not the data set's demonstrations; the
    /// run file's sft.rows otherwise.
    #[arg(long, value_name = "FILE.jsonl")]
    rows: Option<PathBuf>,
    /// Start from random weights of this seed; the run file's `sft.init_seed` otherwise.
    #[arg(long, value_name = "SEED")]
    init_seed: Option<u64>,
    /// The config.json of a policy with random weights, where it is not the model's.
    #[arg(long, value_name = "FILE", requires = "init_seed")]
    model_config: Option<PathBuf>,
    /// cpu, cuda, cuda:1, or auto for a GPU where there is one; the run file's choice otherwise.
    #[arg(long)]
    device: Option<String>,
}

#[derive(Debug, Args)]
struct Score {
    /// Folder of the model, in Hugging Face layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of a PEFT adapter of that model.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Rows with `prompt_ids` and `completion_ids`.
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// The same rows with `logprobs`, one a completion token.
    #[arg(long, value_name = "FILE.jsonl")]
    output: PathBuf,
    /// Divisor of the logits.
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Tokens that are computed at once.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    batch_tokens: usize,
    /// Number type of weights and activations.
    #[arg(long, value_enum, default_value_t = NumberType::Float32)]
    dtype: NumberType,
    /// cpu, cuda, cuda:1, or auto for a GPU where there is one.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads that libtorch computes with.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
}

#[derive(Debug, Args)]
struct Replay {
    /// Folder of the model, in Hugging Face layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of a PEFT adapter to go on with; without one all weights are trained, or a new adapter (lora.rank).
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Rows with `prompt_ids` and `completions`, each with `ids` and `reward`; groups.jsonl of a run has more.
    #[arg(long, value_name = "FILE.jsonl")]
    groups: PathBuf,
    /// Groups that make a step, in the file's order.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    groups_per_step: u32,
    /// Folder for metrics.jsonl and adapter/ (or model/).
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A run file to take settings from, such as run.toml of the run that recorded.
    #[arg(long, value_name = "FILE")]
    run_file: Option<PathBuf>,
    /// Sets a key of the run file, also by TRL's name under grpo; can be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// cpu, cuda, cuda:1, or auto for a GPU where there is one.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads that libtorch computes with; the settings' learner.threads otherwise.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NumberType {
    Float32,
    Bfloat16,
}

#[derive(Debug, Args)]
struct Merge {
    /// Folder of the model, in Hugging Face layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of a PEFT adapter of that model.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// Folder to write; it must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Largest size of a weight file; more weights become several files with an index.
    #[arg(long, value_name = "BYTES", default_value_t = 5_000_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    max_shard_size: u64,
}

fn main() -> ExitCode {
    nccl::keep_sums_repeatable();
    let cli = Cli::parse();
    logs::start();
    openmp::wait_asleep();
    let result = startup::check().map_err(anyhow::Error::from).and_then(|()| match &cli.command {
        Command::Train(command) => startup::runtime(Threads::EveryCore)?.block_on(train(command)),
        Command::Sft(command) => sft(command).map(|()| ExitCode::SUCCESS),
        Command::Score(command) => score(command).map(|()| ExitCode::SUCCESS),
        Command::Replay(command) => replay(command).map(|()| ExitCode::SUCCESS),
        Command::Merge(command) => merge(command).map(|()| ExitCode::SUCCESS),
    });
    match result {
        Ok(code) => output::finish(code),
        Err(error) => {
            tracing::error!("{}", logs::describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Returns the run file, in a process that computes with the code paths that it asks for.
fn pinned(file: RunFile) -> anyhow::Result<RunFile> {
    if file.run.portable {
        portable::pin()?;
    }
    Ok(file)
}

async fn train(command: &Train) -> anyhow::Result<ExitCode> {
    let mut overrides = command.run.overrides.clone();
    let collective = command.collective.as_deref();
    overrides.extend(collective.map(|value| Override::new("network.collective", value)));
    let file = pinned(RunFile::load(&command.run.run_file, &overrides)?)?;
    anyhow::ensure!(
        command.rank < command.world_size,
        "--rank is {}: expected a number below --world-size, which is {}",
        command.rank,
        command.world_size
    );
    let coordinator =
        Place::choose(command.coordinator.as_deref(), command.coordinator_from.as_deref(), &file.network);
    let stop = shutdown::on_signal().context("cannot handle signals")?;
    let endpoint = Endpoint::start(&command.metrics_listen, Vec::new(), stop.clone()).await?;
    metrics::describe();
    tracing::info!("metrics at http://{}/metrics", endpoint.address());
    let options = train::Options {
        coordinator,
        state: command.state.clone(),
        rank: command.rank,
        world_size: command.world_size,
        device: command.device.clone().unwrap_or_else(|| file.launch.learner_device.clone()),
        collective_listen: command.collective_listen.clone(),
        collective_advertise: command.collective_advertise.clone(),
        leave_within: Duration::from_secs(command.leave_within_seconds),
        metrics_address: endpoint.announced(command.metrics_advertise.as_deref())?,
    };
    let ending = train::run(&file, &options, stop, || endpoint.set_ready(true)).await?;
    Ok(match ending {
        Ending::RunOver => ExitCode::SUCCESS,
        Ending::Stopped => ExitCode::from(shutdown::STOPPED),
    })
}

fn score(command: &Score) -> anyhow::Result<()> {
    let device = device::parse(&command.device)?;
    device::set_threads(command.threads)?;
    let precision = match command.dtype {
        NumberType::Float32 => Precision::Float32,
        NumberType::Bfloat16 => Precision::Bfloat16,
    };
    let tokens = score::run(&score::Options {
        model: command.model.clone(),
        adapter: command.adapter.clone(),
        input: command.input.clone(),
        output: command.output.clone(),
        temperature: command.temperature,
        batch_tokens: command.batch_tokens,
        load: LoadOptions { device, precision },
    })?;
    tracing::info!("{tokens} completion tokens are scored in {}", command.output.display());
    Ok(())
}

fn replay(command: &Replay) -> anyhow::Result<()> {
    pinned(replay::settings(command.run_file.as_deref(), &command.overrides)?.file)?;
    let device = device::parse(&command.device)?;
    let (last, folder) = replay::run(&replay::Options {
        model: command.model.clone(),
        adapter: command.adapter.clone(),
        groups: command.groups.clone(),
        groups_per_step: command.groups_per_step as usize,
        out: command.out.clone(),
        run_file: command.run_file.clone(),
        overrides: command.overrides.clone(),
        device,
        threads: command.threads,
    })?;
    let loss = last.get("loss").copied().unwrap_or_default();
    tracing::info!("loss {loss:.4} in the last pass: what was trained is in {}", folder.display());
    Ok(())
}

fn merge(command: &Merge) -> anyhow::Result<()> {
    let Merge { model, adapter, out, max_shard_size } = command;
    merge::run(model, adapter, out, *max_shard_size)?;
    tracing::info!("the merged model is in {}", out.display());
    Ok(())
}

fn sft(command: &Sft) -> anyhow::Result<()> {
    let mut file = command.run.load()?;
    if command.rows.is_some() {
        file.sft.rows.clone_from(&command.rows);
    }
    let device = device::parse(command.device.as_ref().unwrap_or(&file.launch.learner_device))?;
    device::set_threads(file.learner.threads as usize)?;
    let start = sft::Start {
        model: command.model.clone(),
        config: command.model_config.clone(),
        init_seed: command.init_seed.or(file.sft.init_seed),
    };
    let last = sft::run(&file, command.run.folder(), &start, device, &command.out)?;
    if let Some(last) = last {
        notice!(
            "loss {:.4} after {} steps: the policy is in {}",
            last.loss,
            last.step,
            command.out.display()
        );
    }
    Ok(())
}
