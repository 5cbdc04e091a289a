//! `podium`: starts the processes of a run on this machine, shows progress, evaluates, prints status, writes reports.
//!
//! Contains no training logic: the run file defines a run, and the coordinator tracks its progress. The runtime has
//! one thread, which starts every process (see [`processes`]).

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod card;
mod cli;
mod commands;
mod conductor;
mod devices;
mod embedded;
mod load;
mod processes;
mod progress;
mod report;
mod restart;
mod run_folder;
mod services;
mod status_stream;

use podium_service::startup::{self, Threads};
use podium_service::{logs, notice, output};
use std::process::ExitCode;

use clap::Parser;

use cli::{Bench, Cli, Command};

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // One thread, which starts every process.
    let runtime = startup::check().and_then(|()| startup::runtime(Threads::One));
    let code = match runtime {
        Ok(runtime) => runtime.block_on(run(command)).unwrap_or_else(|error| {
            notice!("error: {}", logs::describe(&error));
            error.exit_code()
        }),
        Err(error) => {
            notice!("error: {}", logs::describe(&error));
            ExitCode::FAILURE
        }
    };
    output::finish(code)
}

async fn run(command: Command) -> Result<ExitCode, commands::Error> {
    match command {
        Command::Demo(flags) => commands::demo(&flags).await,
        Command::Train { run_file, flags } => commands::train(&run_file, &flags).await,
        Command::Evaluate { run_file, asked, flags } => commands::evaluate(&run_file, &asked, &flags).await,
        Command::Status(flags) => commands::status(&flags).await,
        Command::CheckConfig { files, assignments, computed } => {
            Ok(commands::check_config(&files, &assignments, &computed))
        }
        Command::Bench { part: Bench::Coordinator(flags) } => commands::bench(&flags).await,
        Command::DropVersion { out, version } => commands::drop_version(out, version),
        Command::Report { out } => commands::report(out),
    }
}
