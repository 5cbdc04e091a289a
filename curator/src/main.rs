//! Offline data preparation: creates the data folders of runs. Does not connect to a coordinator.

// Printing macros panic if the output is closed: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod assess;
mod baselines;
mod caption;
mod check;
mod endpoint;
mod export;
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

/// Prepares data sets for Podium.
#[derive(Debug, Parser)]
#[command(name = "podium-curator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the embedded data set and its tokenizer as files, for inspection or as a template for custom data.
    Embedded {
        /// Output folder; created if necessary.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Run file whose `[world]` defines the data set, such as run.toml in the folder of a demo [default: the defaults].
        #[arg(long, value_name = "RUN.toml")]
        run_file: Option<PathBuf>,
        /// Seed of catalogue, users and reasoning [default: world.seed of the run file, or 0].
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Import a data set from public files or custom logs.
    Import(import::Arguments),
    /// Export a data set as RecBole's atomic files or as Parquet.
    Export(export::Arguments),
    /// Write a tokenizer with one token per item and the configuration of a small policy to train from random weights.
    Vocabulary(vocabulary::Arguments),
    /// Train and evaluate rankers without a policy: random, popularity, item-kNN, SASRec, GRU4Rec, BPR-MF, LightGCN, EASE.
    Baselines(baselines::Arguments),
    /// Measure the lengths of a run file's prompts and their shortening.
    Prompts(prompts::Arguments),
    /// Describe the pictures of items in at most fifty words with a model.
    Caption(caption::Arguments),
    /// Generate reasoning about training users with a model that sees their pictures or captions.
    Reason(reasoning::reason::Arguments),
    /// Rewrite that reasoning from captions only with a reasoning model.
    Refine(reasoning::refine::Arguments),
    /// Compute the confidence in reasoning with a judge that does not know the target.
    Assess(assess::Arguments),
    /// Write a mixed-grained training file in which a fraction of the completions contains reasoning.
    Mix(mix::Arguments),
    /// Check training texts for leaks, repetitions and malformed rows.
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
        Command::Prompts(arguments) => print_report(prompts::measure(arguments)),
        Command::Baselines(arguments) => baselines::run(arguments),
        Command::Import(arguments) => print_report(import::import(arguments)),
        Command::Export(arguments) => print_report(export::export(arguments)),
        Command::Caption(arguments) => wait_for(arguments.run()),
        Command::Reason(arguments) => wait_for(arguments.run()),
        Command::Refine(arguments) => wait_for(arguments.run()),
        Command::Assess(arguments) => wait_for(arguments.run()),
        Command::Vocabulary(arguments) => arguments.run(),
        Command::Mix(arguments) => arguments.run(),
        Command::Check(arguments) => arguments.run(),
    }
}

/// Writes the embedded data set unless the folder contains another one.
fn write_embedded(out: &Path, world: &World) -> anyhow::Result<()> {
    anyhow::ensure!(
        !out.join("train.tsv").exists() || out.join(synthetic::WORLD_FILE).exists(),
        "{} contains another data set: expected a new folder, or one written by this command",
        out.display()
    );
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    synthetic::write_data(world, out)?;
    word_level::write(word_level::tokens(synthetic::words(world)?), out)?;
    tracing::info!(
        "{} training users, {} for validation, {} for test, {} items: {}",
        world.train_users,
        world.validation_users,
        world.test_users,
        world.items(),
        out.display()
    );
    Ok(())
}

/// Prints the report of a command.
fn print_report<E: Into<anyhow::Error>>(report: Result<impl Display, E>) -> anyhow::Result<ExitCode> {
    output!("{}", report.map_err(Into::into)?);
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that uses an endpoint.
fn wait_for(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    startup::runtime(Threads::EveryCore)?.block_on(work)
}
