//! The command line of the learner.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use podium_config::{Override, RunFile};
use podium_learner::train::{self, Ending};
use podium_learner::{merge, metrics, replay, score, selfcheck, sft};
use podium_model::{LoadOptions, device};
use podium_service::metrics_server::Endpoint;
use podium_service::startup::{self, Threads};
use podium_service::{environment, logs, notice, output, output_line, shutdown};
use podium_transfer::{CoordinatorLocation, Credentials};

/// Trains policies: GRPO steps of a run, and supervised fine-tuning; replays recorded groups, scores completions, merges adapters.
#[derive(Debug, Parser)]
#[command(name = "podium-learner", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a learner rank of a run. Exits with 0 when the run is over, and with 75 after a graceful shutdown before
    /// that; start it again to resume from its checkpoint.
    Train(Train),
    /// Fine-tunes a policy on a data set's demonstrations.
    Sft(Sft),
    /// Computes the log-probabilities of given completions.
    Score(Score),
    /// Trains on recorded groups.
    Replay(Replay),
    /// Merges an adapter into the weights of its model.
    Merge(Merge),
    /// Checks what a device computes, and measures its speed. Prints JSON; exits with 1 if a check fails.
    Selfcheck(Selfcheck),
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
        prepared(RunFile::load(&self.run_file, &self.overrides)?)
    }

    /// The folder that the run file's template paths are relative to.
    fn folder(&self) -> &Path {
        self.run_file.parent().unwrap_or(Path::new("."))
    }
}

#[derive(Debug, Args)]
struct Train {
    #[command(flatten)]
    run: Run,
    /// Address of the coordinator; default: the environment's `PODIUM_COORDINATOR`, then the run file's
    /// network.coordinator.
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: Option<String>,
    /// Read the coordinator's address from the run folder and wait for it; also `PODIUM_COORDINATOR_FROM`.
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
    /// cpu, cuda, cuda:1, or auto for a GPU if there is one; default: the run file's setting.
    #[arg(long)]
    device: Option<String>,
    /// How ranks sum gradients; default: the run file's network.collective.
    #[arg(long, value_name = "auto|nccl|tcp", value_parser = ["auto", "nccl", "tcp"])]
    collective: Option<String>,
    /// Address on which rank 0 listens for the other ranks.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    collective_listen: String,
    /// Address by which the other ranks reach rank 0; default: this host's name, or the listening address.
    #[arg(long, value_name = "HOST[:PORT]")]
    collective_advertise: Option<String>,
    /// On SIGTERM, time limit for submitting the finished step to the coordinator.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    leave_within_seconds: u64,
    /// Address on which to serve metrics.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    metrics_listen: String,
    /// HOST:PORT under which Prometheus reaches the metrics; default: the listening port. The coordinator lists the port
    /// under the address of this process's connection, whatever the host.
    #[arg(long, value_name = "HOST[:PORT]")]
    metrics_advertise: Option<String>,
}

#[derive(Debug, Args)]
struct Sft {
    #[command(flatten)]
    run: Run,
    /// Folder to write the policy to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder of the initial policy; default: the run file's model.path.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Train on the rows of this file (written by `podium-curator mix`) instead of the data set's demonstrations;
    /// default: the run file's sft.rows.
    #[arg(long, value_name = "FILE.jsonl")]
    rows: Option<PathBuf>,
    /// Start from random weights with this seed; default: the run file's `sft.init_seed`.
    #[arg(long, value_name = "SEED")]
    init_seed: Option<u64>,
    /// The config.json of a policy with random weights, if it is not the model's.
    #[arg(long, value_name = "FILE", requires = "init_seed")]
    model_config: Option<PathBuf>,
    /// cpu, cuda, cuda:1, or auto for a GPU if there is one; default: the run file's setting.
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
    /// Input rows with `prompt_ids` and `completion_ids`.
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// File to write the same rows to, with `logprobs`, one per completion token.
    #[arg(long, value_name = "FILE.jsonl")]
    output: PathBuf,
    /// Divisor of the logits.
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Maximum number of tokens per batch.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    batch_tokens: usize,
    /// Number type of weights and activations.
    #[arg(long, value_enum, default_value_t = NumberType::Float32)]
    dtype: NumberType,
    /// cpu, cuda, cuda:1, or auto for a GPU if there is one.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Number of libtorch threads.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
}

#[derive(Debug, Args)]
struct Replay {
    /// Folder of the model, in Hugging Face layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of a PEFT adapter to continue with; default: train all weights, or a new adapter if lora.rank is set.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Input rows with `prompt_ids` and `completions`, each with `ids` and `reward`; a run's groups.jsonl has this
    /// format.
    #[arg(long, value_name = "FILE.jsonl")]
    groups: PathBuf,
    /// Number of groups per step, in the file's order.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    groups_per_step: u32,
    /// Output folder for metrics.jsonl and adapter/ (or model/).
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Run file with settings, such as run.toml of the recorded run.
    #[arg(long, value_name = "FILE")]
    run_file: Option<PathBuf>,
    /// Sets a key of the run file; grpo also accepts TRL's names; can be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// cpu, cuda, cuda:1, or auto for a GPU if there is one.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Number of libtorch threads; default: learner.threads of the settings.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NumberType {
    Float32,
    Bfloat16,
}

#[derive(Debug, Args)]
struct Selfcheck {
    /// cpu, cuda, cuda:1, or auto for a GPU if there is one.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Number of libtorch threads.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Do not measure speed.
    #[arg(long)]
    no_speed: bool,
    /// Print only the digest of an update, which equal devices share.
    #[arg(long)]
    digest: bool,
}

#[derive(Debug, Args)]
struct Merge {
    /// Folder of the model, in Hugging Face layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of a PEFT adapter of that model.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// Output folder; it must be empty or not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Maximum size of a weight file; larger models are split into shards with an index.
    #[arg(long, value_name = "BYTES", default_value_t = 5_000_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    max_shard_size: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::start();
    let result = startup::check().map_err(anyhow::Error::from).and_then(|()| match &cli.command {
        Command::Train(command) => startup::runtime(Threads::EveryCore)?.block_on(train(command)),
        Command::Sft(command) => sft(command).map(|()| ExitCode::SUCCESS),
        Command::Score(command) => score(command).map(|()| ExitCode::SUCCESS),
        Command::Replay(command) => replay(command).map(|()| ExitCode::SUCCESS),
        Command::Merge(command) => merge(command).map(|()| ExitCode::SUCCESS),
        Command::Selfcheck(command) => check_device(command),
    });
    match result {
        Ok(code) => output::finish(code),
        Err(error) => {
            tracing::error!("{}", logs::describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Returns the run file, in a process with the environment that it requires.
fn prepared(file: RunFile) -> anyhow::Result<RunFile> {
    environment::prepare(file.run.portable)?;
    Ok(file)
}

async fn train(command: &Train) -> anyhow::Result<ExitCode> {
    let mut overrides = command.run.overrides.clone();
    let collective = command.collective.as_deref();
    overrides.extend(collective.map(|value| Override::new("network.collective", value)));
    let file = prepared(RunFile::load(&command.run.run_file, &overrides)?)?;
    anyhow::ensure!(
        command.rank < command.world_size,
        "--rank is {}: expected a number below --world-size, which is {}",
        command.rank,
        command.world_size
    );
    let coordinator = CoordinatorLocation::choose(
        command.coordinator.as_deref(),
        command.coordinator_from.as_deref(),
        &file.network,
    );
    let stop = shutdown::on_signal().context("cannot handle signals")?;
    let endpoint = Endpoint::start(&command.metrics_listen, Vec::new(), stop.clone()).await?;
    metrics::describe();
    tracing::info!("metrics at http://{}/metrics", endpoint.address());
    let options = train::Options {
        credentials: Credentials::choose(&coordinator, &command.run.run_file, &file.network),
        coordinator,
        state: command.state.clone(),
        rank: command.rank,
        world_size: command.world_size,
        device: command.device.clone().unwrap_or_else(|| file.launch.learner_device.clone()),
        collective_listen: command.collective_listen.clone(),
        collective_advertise: command.collective_advertise.clone(),
        shutdown_deadline: Duration::from_secs(command.leave_within_seconds),
        metrics_address: endpoint.announced(command.metrics_advertise.as_deref())?,
        shared: None,
    };
    let _sampling = podium_service::gpus::Sampling::start(&options.device);
    let ending = train::run(&file, &options, stop, || endpoint.set_ready(true)).await?;
    Ok(match ending {
        Ending::RunOver => ExitCode::SUCCESS,
        Ending::Stopped => ExitCode::from(shutdown::STOPPED),
    })
}

fn score(command: &Score) -> anyhow::Result<()> {
    environment::prepare_alone(false, command.threads)?;
    let device = device::parse(&command.device)?;
    device::set_threads(command.threads)?;
    let bfloat16 = Some(matches!(command.dtype, NumberType::Bfloat16));
    // The flag asks for the type, also where it is slow.
    device::check_bfloat16(device, bfloat16, true)?;
    let tokens = score::run(&score::Options {
        model: command.model.clone(),
        adapter: command.adapter.clone(),
        input: command.input.clone(),
        output: command.output.clone(),
        temperature: command.temperature,
        batch_tokens: command.batch_tokens,
        load: LoadOptions::new(device, bfloat16),
    })?;
    tracing::info!(
        "wrote the log-probabilities of {tokens} completion tokens to {}",
        command.output.display()
    );
    Ok(())
}

fn replay(command: &Replay) -> anyhow::Result<()> {
    let settings = replay::Settings::load(command.run_file.as_deref(), &command.overrides)?;
    let threads = command.threads.unwrap_or(settings.file.learner.threads as usize);
    environment::prepare_alone(settings.file.run.portable, threads)?;
    let device = device::parse(&command.device)?;
    let (last, folder) = replay::run(&replay::Options {
        model: command.model.clone(),
        adapter: command.adapter.clone(),
        groups: command.groups.clone(),
        groups_per_step: command.groups_per_step as usize,
        out: command.out.clone(),
        settings,
        device,
        threads: command.threads,
    })?;
    let loss = last.get("loss").copied().unwrap_or_default();
    tracing::info!("loss {loss:.4} in the last pass; the policy is in {}", folder.display());
    Ok(())
}

fn check_device(command: &Selfcheck) -> anyhow::Result<ExitCode> {
    let Selfcheck { device, threads, no_speed, digest } = command;
    environment::prepare_alone(false, *threads)?;
    let options = selfcheck::Options { device: device.clone(), threads: *threads, speed: !no_speed };
    if *digest {
        output_line!("{}", selfcheck::digest(&options)?);
        return Ok(ExitCode::SUCCESS);
    }
    let report = selfcheck::run(&options)?;
    let failures = report.failures();
    output_line!("{}", report.to_json());
    for failure in &failures {
        tracing::error!("{failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
            "loss {:.4} after {} steps; the policy is in {}",
            last.loss,
            last.step,
            command.out.display()
        );
    }
    Ok(())
}
