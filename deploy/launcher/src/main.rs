//! `podium`: starts the processes of a run on this machine, shows progress, evaluates, prints status, writes reports.
//!
//! Holds nothing of the training itself: what a run is lies in its run file, how far it is the coordinator knows. The
//! runtime has one thread, which starts every process (see [`processes`]).

mod checksums;
mod cli;
mod commands;
mod conductor;
mod embedded;
mod evaluation;
mod processes;
mod progress;
mod report;
mod restart;
mod results;
mod run_folder;
mod services;
mod status_stream;
mod table;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(flags) => commands::demo(&flags).await,
        Command::Train { run_file, flags } => commands::train(&run_file, &flags).await,
        Command::Evaluate { run_file, asked, flags } => commands::evaluate(&run_file, &asked, &flags).await,
        Command::Status(flags) => commands::status(&flags).await,
        Command::CheckConfig { files, assignments } => Ok(commands::check_config(&files, &assignments)),
        Command::DropVersion { out, version } => commands::drop_version(out, version),
        Command::Report { out } => commands::report(out),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
