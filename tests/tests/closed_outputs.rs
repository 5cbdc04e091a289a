//! Commands whose reader has closed the pipe (`podium status | head`) end with their usual exit
//! code and do not panic.

use std::io::pipe;
use std::process::Stdio;

use anyhow::{Result, ensure};
use podium_tests::{Process, Run, path_text};

/// Runs a command with closed outputs and requires the exit code `code`. A panic ends with 101 or,
/// in a release build that aborts, with a signal.
fn ends_without_reader(program: &str, arguments: &[&str], code: i32) -> Result<()> {
    for both in [false, true] {
        let (reader, writer) = pipe()?;
        drop(reader);
        let mut command = Process::prepare(program, arguments);
        let errors = if both { Stdio::from(writer.try_clone()?) } else { Stdio::piped() };
        let output =
            command.stdin(Stdio::null()).stdout(writer).stderr(errors).spawn()?.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!said.contains("panicked"), "{program} {arguments:?}: {said}");
        ensure!(
            output.status.code() == Some(code),
            "{program} {arguments:?} ends with {}: {said}",
            output.status
        );
    }
    Ok(())
}

#[test]
fn help_needs_no_reader() -> Result<()> {
    let programs =
        ["podium", "podium-coordinator", "podium-rollout-worker", "podium-learner", "podium-curator"];
    for program in programs {
        ends_without_reader(program, &["--help"], 0)?;
        ends_without_reader(program, &["--version"], 0)?;
        ends_without_reader(program, &["--no-such-option"], 2)?;
    }
    for command in ["demo", "train", "evaluate", "status", "check-config", "drop-version", "report"] {
        ends_without_reader("podium", &[command, "--help"], 0)?;
    }
    Ok(())
}

#[test]
fn commands_that_print_need_no_reader() -> Result<()> {
    let run = Run::embedded(&["run.steps=2"])?;
    let folder = tempfile::tempdir()?;
    let (data, nowhere) = (folder.path().join("data"), folder.path().join("nowhere"));
    let (data, nowhere) = (path_text(&data), path_text(&nowhere));
    ends_without_reader("podium", &["check-config", run.run_file()], 0)?;
    ends_without_reader("podium", &["status", "--out", nowhere], 1)?;
    ends_without_reader("podium", &["report", nowhere], 1)?;
    ends_without_reader("podium-curator", &["embedded", "--out", data], 0)?;
    ends_without_reader("podium-curator", &["baselines", "--data", data], 0)?;
    Ok(())
}
