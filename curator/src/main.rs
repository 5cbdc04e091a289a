//! The offline side: makes the data folders that runs read. It never talks to a coordinator.

mod baselines;
mod import;
mod prompts;
mod spread;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use podium_recsys::synthetic::{self, World};
use podium_runtime::logs;

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
        /// Seed of catalogue, users and reasoning.
        #[arg(long, default_value_t = World::default().seed)]
        seed: u64,
    },
    /// Makes a data set of public files or of logs of your own.
    Import(import::Arguments),
    /// How well rankers without a policy do on a data set: random, popularity and item-kNN.
    Baselines(baselines::Arguments),
    /// How long the prompts of a run file are, and what was shortened in them.
    Prompts(prompts::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::start();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", logs::describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Embedded { out, seed } => {
            let world = World { seed: *seed, ..World::default() };
            std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
            synthetic::write_data(&world, out)?;
            synthetic::write_tokenizer(&world, out)?;
            tracing::info!(
                "{} training users, {} held out, {} items: {}",
                world.train_users,
                world.test_users,
                world.items(),
                out.display()
            );
        }
        Command::Prompts(arguments) => print!("{}", prompts::measure(arguments)?),
        Command::Baselines(arguments) => print!("{}", baselines::measure(arguments)?),
        Command::Import(arguments) => print!("{}", import::import(arguments)?),
    }
    Ok(())
}
