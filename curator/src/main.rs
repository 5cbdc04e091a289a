//! The offline side: makes the data folders that runs read. It never talks to a coordinator.

// Printing macros panic where the output is gone: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod assess;
mod baselines;
mod caption;
mod check;
mod endpoint;
mod flags;
mod import;
mod leak;
mod mix;
mod naming;
mod pictures;
mod prompts;
mod reasoning;
mod session;
mod source;
mod spread;
mod store;
mod vocabulary;
mod wording;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use podium_config::RunFile;
use podium_recsys::synthetic::{self, World};
use podium_service::startup::{self, Threads};
use podium_service::{logs, output};
use podium_tokenizer::word_level;

/// Makes data sets for Podium.
#[derive(Debug, Parser)]
#[command(name = "podium-curator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes the embedded data set and its tokenizer as files: to look at, or as a pattern for your own.
    Embedded {
        /// Folder to write into; it is made where it is missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Run file whose `[world]` the data set is of, such as run.toml in the folder of a demo [default: the defaults].
        #[arg(long, value_name = "RUN.toml")]
        run_file: Option<PathBuf>,
        /// Seed of catalogue, users and reasoning [default: world.seed of the run file, or 0].
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Makes a data set of public files or of logs of your own.
    Import(import::Arguments),
    /// A tokenizer with one token an item, and the shape of a small policy to be trained from random weights.
    Vocabulary(vocabulary::Arguments),
    /// How well rankers without a policy do on a data set: random, popularity and item-kNN.
    Baselines(baselines::Arguments),
    /// How long the prompts of a run file are, and what was shortened in them.
    Prompts(prompts::Arguments),
    /// Describes the pictures of items in at most fifty words, by asking a model.
    Caption(caption::Arguments),
    /// Reasons about what training users want next, by asking a model that sees their pictures or captions.
    Reason(reasoning::reason::Arguments),
    /// Has a reasoning model rewrite that reasoning from captions alone.
    Refine(reasoning::refine::Arguments),
    /// Measures how far reasoning can be trusted, by asking a judge who does not know the target.
    Assess(assess::Arguments),
    /// Writes a training file in which a share of the users reason and the rest answer plainly.
    Mix(mix::Arguments),
    /// Looks for leaks, repetitions and malformed rows in what a policy is trained on.
    Check(check::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::start();
    match startup::check().map_err(anyhow::Error::from).and_then(|()| run(&cli.command)) {
        Ok(code) => output::finish(code),
        Err(error) => {
            tracing::error!("{}", logs::describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Embedded { out, run_file, seed } => {
            let file =
                run_file.as_deref().map(|path| RunFile::load(path, &[])).transpose()?.unwrap_or_default();
            write_embedded(out, &World { seed: seed.unwrap_or(file.world.seed), ..file.world })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Prompts(arguments) => told(prompts::measure(arguments)),
        Command::Baselines(arguments) => told(baselines::measure(arguments)),
        Command::Import(arguments) => told(import::import(arguments)),
        Command::Caption(arguments) => wait_for(arguments.run()),
        Command::Reason(arguments) => wait_for(arguments.run()),
        Command::Refine(arguments) => wait_for(arguments.run()),
        Command::Assess(arguments) => wait_for(arguments.run()),
        Command::Vocabulary(arguments) => arguments.run(),
        Command::Mix(arguments) => arguments.run(),
        Command::Check(arguments) => arguments.run(),
    }
}

/// Writes the embedded data set, and never over another one.
fn write_embedded(out: &Path, world: &World) -> anyhow::Result<()> {
    anyhow::ensure!(
        !out.join("train.tsv").exists() || out.join(synthetic::WORLD_FILE).exists(),
        "{} holds another data set: expected a new folder, or one that this command wrote",
        out.display()
    );
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    synthetic::write_data(world, out)?;
    word_level::write(word_level::tokens(synthetic::words(world)?), out)?;
    tracing::info!(
        "{} training users, {} held out, {} items: {}",
        world.train_users,
        world.test_users,
        world.items(),
        out.display()
    );
    Ok(())
}

/// Prints what a command has to say.
fn told<E: Into<anyhow::Error>>(report: Result<impl Display, E>) -> anyhow::Result<ExitCode> {
    output!("{}", report.map_err(Into::into)?);
    Ok(ExitCode::SUCCESS)
}

/// Runs what asks an endpoint.
fn wait_for(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    startup::runtime(Threads::EveryCore)?.block_on(work)
}
