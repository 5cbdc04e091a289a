//! Runs started by the `podium` command, for tests that disturb them.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{DEFAULTS, PATIENCE, Process, Run, binary, path_text, weights_hash};

/// A run of the embedded demo under one `podium` process.
#[derive(Debug)]
pub struct Launched {
    /// Its folder, and queries to its coordinator.
    pub run: Run,
    settings: Vec<String>,
}

impl Launched {
    /// Creates a run with [`DEFAULTS`] and `settings` without starting it.
    pub fn new(settings: &[&str]) -> Result<Self> {
        let settings = DEFAULTS.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        Ok(Self { run: Run::to_come()?, settings })
    }

    /// Returns `podium`'s arguments that start or continue it.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments =
            vec!["demo".to_owned(), "--out".to_owned(), path_text(&self.run.out()).to_owned()];
        for setting in &self.settings {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        arguments
    }

    /// Returns a command that starts or continues it; `podium`: another copy of the program than the built one.
    pub fn command(&self, podium: Option<&Path>) -> Command {
        let mut command = Command::new(podium.map_or_else(|| binary("podium"), Path::to_owned));
        command.args(self.arguments());
        command
    }

    /// Starts or continues it.
    pub fn start(&self, name: &str) -> Result<Process> {
        Process::start(name, self.command(None), self.run.folder())
    }

    /// Waits until `step` steps are committed.
    pub async fn reach(&self, step: u64) -> Result<()> {
        self.run.wait_until("a step", |status| status.step >= step).await.map(drop)
    }

    /// Requires the weights of an undisturbed run.
    pub fn check_weights(&self, version: u64, undisturbed: &str) -> Result<()> {
        let found = self.run.weights_hash(version)?;
        ensure!(found == undisturbed, "the weights differ from those of an undisturbed run");
        Ok(())
    }

    /// Sends a signal to the coordinator.
    pub fn signal_coordinator(&self, signal: Signal) -> Result<()> {
        let pid = self.run.coordinator_pid()?;
        Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
    }
}

/// Waits until `podium` has started `count` processes of this program that are not in `earlier`, and returns their ids.
pub fn started(podium: &Process, program: &str, count: usize, earlier: &[Pid]) -> Result<Vec<Pid>> {
    // The system truncates names to 15 bytes.
    let program = program.get(..15).unwrap_or(program);
    let began = Instant::now();
    loop {
        let path = format!("/proc/{0}/task/{0}/children", podium.id());
        let mut found = Vec::new();
        for id in fs::read_to_string(path)?.split_whitespace() {
            let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            let pid = Pid::from_raw(id.parse()?);
            if name.trim() == program && !earlier.contains(&pid) {
                found.push(pid);
            }
        }
        if found.len() == count {
            return Ok(found);
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "podium runs {} new processes of {program}, expected {count}:\n{}",
            found.len(),
            podium.output()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the hash of the weights of an undisturbed run.
pub fn undisturbed(settings: &[&str], version: u64) -> Result<String> {
    let launched = Launched::new(settings)?;
    launched.start("undisturbed")?.wait_for_success()?;
    weights_hash(&launched.run.out(), version)
}

/// Returns the exit code of `podium` with these arguments, and both its outputs.
pub fn podium<A: AsRef<OsStr>>(arguments: &[A]) -> Result<(Option<i32>, String)> {
    let output = Command::new(binary("podium")).args(arguments).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

/// Returns the output of `podium status` for a run.
pub fn status(run: &Run) -> Result<(Option<i32>, String)> {
    podium(&["status", "--out", path_text(&run.out())])
}
