//! The reference of commands: docs/reference/commands.md is what the programs print with `--help`.

use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::binary;

const PROGRAMS: [&str; 6] = [
    "podium",
    "podium-coordinator",
    "podium-rollout-worker",
    "podium-learner",
    "podium-colocated",
    "podium-curator",
];

/// The page.
pub fn page() -> Result<String> {
    let mut page = String::from(
        "# Commands\n\nThe programs and subcommands of Podium with their options, as printed by `--help`. \
         `make commands` writes this page.\n\nOptions that name a run-file key in square brackets override that key.\n",
    );
    for program in PROGRAMS {
        describe(&[program], &mut page)?;
    }
    Ok(page)
}

/// Writes the section of a command, then those of its subcommands.
fn describe(command: &[&str], page: &mut String) -> Result<()> {
    let help = help(command)?;
    let level = "#".repeat(command.len() + 1);
    write!(page, "\n{level} {}\n\n```text\n{}\n```\n", command.join(" "), help.trim_end())?;
    for subcommand in subcommands(&help) {
        describe(&[command, &[subcommand]].concat(), page)?;
    }
    Ok(())
}

fn help(command: &[&str]) -> Result<String> {
    let [program, subcommands @ ..] = command else { unreachable!("a command begins with a program") };
    let mut process = Command::new(binary(program));
    let output = process.args(subcommands).arg("--help").output().with_context(|| command.join(" "))?;
    ensure!(output.status.success(), "{} --help: {}", command.join(" "), output.status);
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}

/// The names under `Commands:`, without `help`.
fn subcommands(help: &str) -> impl Iterator<Item = &str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help")
}
