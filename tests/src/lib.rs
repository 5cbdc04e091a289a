//! Starts the real binaries for black-box tests: spawn, kill, restart, compare.
//!
//! The binaries are the release ones beside the test executable; `make test` builds them first.

pub mod book;
pub mod commands;
pub mod launched;
pub mod link;
pub mod relay;
pub mod scrape;
mod weights;

pub use weights::{Weights, weights_hash};

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podium_proto::v1;
use podium_transfer::announcement::{self, Announcement};
use podium_transfer::{Coordinator, CoordinatorLocation, Credentials, Limits, secret};
use tokio_util::sync::CancellationToken;

/// Timeout of every wait: everything in these tests is small.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The release binary of that name.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has an executable");
    let folder = test.parent().and_then(Path::parent).expect("test executables are in target/release/deps");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --release --workspace --bins --examples` first",
        path.display()
    );
    path
}

/// A process of a run that is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a binary with its output in `<folder>/<name>.log`.
    pub fn spawn(name: &str, binary_name: &str, arguments: &[&str], folder: &Path) -> Result<Self> {
        Self::start(name, Self::prepare(binary_name, arguments), folder)
    }

    /// Returns a command for a binary, to be extended by more than arguments.
    pub fn prepare(binary_name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary(binary_name));
        command.args(arguments);
        command
    }

    /// Starts a command with its output in `<folder>/<name>.log`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the exit, at most [`PATIENCE`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > PATIENCE {
                bail!("{} did not end within {PATIENCE:?}; its output:\n{}", self.name, self.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the exit and requires success.
    pub fn wait_for_success(&mut self) -> Result<()> {
        let status = self.wait()?;
        ensure!(status.success(), "{} failed with {status}; its output:\n{}", self.name, self.output());
        Ok(())
    }

    /// Waits for the exit and requires this exit code.
    pub fn wait_for_code(&mut self, code: i32) -> Result<()> {
        let status = self.wait()?;
        ensure!(
            status.code() == Some(code),
            "{} exited with {status}, expected {code}; its output:\n{}",
            self.name,
            self.output()
        );
        Ok(())
    }

    /// Waits for the exit, requires failure, and returns the output.
    pub fn wait_for_failure(&mut self) -> Result<String> {
        let status = self.wait()?;
        ensure!(
            !status.success(),
            "{} succeeded, expected a failure; its output:\n{}",
            self.name,
            self.output()
        );
        Ok(self.output())
    }

    /// Returns the output so far, standard output and standard error.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Settings of the runs of tests where a test does not set them: without constrained answers, so that malformed completions
/// occur, and with the processor's own code paths, which are faster.
pub const DEFAULTS: [&str; 2] = ["rollout.constrain_answers=false", "run.portable=false"];

/// Settings of `[world]` for a catalogue that does not renew itself.
pub const STATIC_WORLD: [&str; 5] = [
    "candidates.untouched_in_training=true",
    "world.new_items_per_pair=0",
    "world.popularity_skew=1.0",
    "world.p_switch=0.25",
    "world.p_look=0.85",
];

/// A run whose processes a test starts one by one.
#[derive(Debug)]
pub struct Run {
    folder: tempfile::TempDir,
    run_file: PathBuf,
}

impl Run {
    /// Creates the run of `podium demo` with [`DEFAULTS`] and `overrides`.
    pub fn embedded(overrides: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("run");
        let mut arguments = vec!["demo", "--prepare-only", "--out", path_text(&out)];
        for change in [&DEFAULTS, overrides].concat() {
            arguments.extend(["--set", change]);
        }
        Process::spawn("prepare", "podium", &arguments, folder.path())?.wait_for_success()?;
        Ok(Self { run_file: out.join("run.toml"), folder })
    }

    /// A run that is started elsewhere, in [`Self::out`].
    pub fn to_come() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { run_file: folder.path().join("run/run.toml"), folder })
    }

    /// The run folder.
    pub fn out(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Folder of the processes' own folders and outputs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The resolved run file.
    pub fn run_file(&self) -> &str {
        path_text(&self.run_file)
    }

    /// Starts a coordinator and waits until it serves.
    pub fn coordinator(&self, name: &str) -> Result<Process> {
        self.coordinator_with(name, &[])
    }

    /// The same with additional arguments.
    pub fn coordinator_with(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        // A restart would otherwise be taken for running by the file that the process before it left.
        let announced = self.out().join(announcement::FILE);
        let before = fs::metadata(&announced).and_then(|file| file.modified()).ok();
        let out = self.out();
        let arguments = [&["--run-file", self.run_file(), "--out", path_text(&out)], arguments].concat();
        let mut process = Process::spawn(name, "podium-coordinator", &arguments, self.folder())?;
        let start = Instant::now();
        while fs::metadata(&announced).and_then(|file| file.modified()).ok() == before {
            if let Some(status) = process.child.try_wait()? {
                bail!("the coordinator exited with {status}:\n{}", process.output());
            }
            ensure!(start.elapsed() < PATIENCE, "the coordinator does not serve:\n{}", process.output());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// The coordinator's address, host:port.
    pub fn address(&self) -> Result<String> {
        Ok(self.announcement()?.address)
    }

    /// The address of the coordinator's metrics, host:port.
    pub fn metrics_address(&self) -> Result<String> {
        self.announcement()?.metrics_address.context("the coordinator announced no metrics address")
    }

    /// The id of the coordinator's process, from its announcement.
    pub fn coordinator_pid(&self) -> Result<u32> {
        Ok(self.announcement()?.pid)
    }

    fn announcement(&self) -> Result<Announcement> {
        Ok(Announcement::read(&self.out().join(announcement::FILE))?)
    }

    /// Starts a rollout worker, which finds the coordinator by the run folder.
    pub fn worker(&self, name: &str) -> Result<Process> {
        self.worker_of(name, ["--coordinator-from", path_text(&self.out())])
    }

    /// Starts a rollout worker with the coordinator's address, host:port.
    pub fn worker_at(&self, name: &str, address: &str) -> Result<Process> {
        self.worker_of(name, ["--coordinator", address])
    }

    fn worker_of(&self, name: &str, coordinator: [&str; 2]) -> Result<Process> {
        let cache = self.folder().join(name);
        let own = ["--run-file", self.run_file(), "--cache", path_text(&cache), "--device", "cpu"];
        let arguments = [&own[..], &coordinator].concat();
        Process::spawn(name, "podium-rollout-worker", &arguments, self.folder())
    }

    /// Starts learner rank `rank` of `world_size`.
    pub fn learner(&self, name: &str, rank: u32, world_size: u32) -> Result<Process> {
        Process::start(name, self.learner_command(rank, world_size, "cpu")?, self.folder())
    }

    /// The command that starts learner rank `rank` of `world_size` on a device.
    pub fn learner_command(&self, rank: u32, world_size: u32, device: &str) -> Result<Command> {
        let (out, state) = (self.out(), self.folder().join("learner"));
        let (rank, world_size) = (rank.to_string(), world_size.to_string());
        let arguments = [
            "train",
            "--run-file",
            self.run_file(),
            "--coordinator-from",
            path_text(&out),
            "--state",
            path_text(&state),
            "--rank",
            &rank,
            "--world-size",
            &world_size,
            "--device",
            device,
        ];
        Ok(Process::prepare("podium-learner", &arguments))
    }

    /// A client of the run's coordinator.
    pub fn client(&self) -> Result<Coordinator> {
        let limits = Limits::of(&podium_config::Network::default());
        let place = CoordinatorLocation::Announced(self.out().join(announcement::FILE));
        let coordinator = Coordinator::at(place, limits, CancellationToken::new())?;
        Ok(coordinator.with_credentials(self.credentials()))
    }

    /// The file with the run's secret.
    pub fn secret_file(&self) -> PathBuf {
        self.out().join(secret::FILE)
    }

    /// The run's secret, for calls to its coordinator.
    pub fn credentials(&self) -> Credentials {
        Credentials::from_file(self.secret_file())
    }

    /// Returns the run's present status.
    pub async fn status(&self) -> Result<v1::RunStatus> {
        let coordinator = self.client()?;
        let status = coordinator.call("ask for the status", || {
            let mut client = coordinator.status();
            async move { client.get(v1::StatusRequest {}).await }
        });
        Ok(status.await?)
    }

    /// Waits until the run's status satisfies `holds`.
    pub async fn wait_until(
        &self,
        what: &str,
        holds: impl Fn(&v1::RunStatus) -> bool,
    ) -> Result<v1::RunStatus> {
        let start = Instant::now();
        loop {
            let status = self.status().await?;
            if holds(&status) {
                return Ok(status);
            }
            ensure!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}; the status is {status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SHA-256 of a policy version's weights.
    pub fn weights_hash(&self, version: u64) -> Result<String> {
        weights_hash(&self.out(), version)
    }
}

/// Returns a copy of the demo's initial policy, with a chat template that ends prompts with `generation_prompt`, if
/// given.
pub fn embedded_start(generation_prompt: Option<&str>) -> Result<tempfile::TempDir> {
    let start = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launcher/embedded/start");
    let folder = tempfile::tempdir()?;
    for entry in fs::read_dir(start)? {
        let entry = entry?;
        fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    if let Some(generation_prompt) = generation_prompt {
        let template = format!(
            "{{%- for message in messages %}}{{{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}}}\
             {{%- endfor %}}{{%- if add_generation_prompt %}}{{{{- '<|im_start|>' }}}}{generation_prompt}{{%- endif %}}"
        );
        fs::write(folder.path().join("chat_template.jinja"), template)?;
    }
    Ok(folder)
}

/// Rows of a JSON lines file.
pub fn rows(path: &Path) -> Result<Vec<serde_json::Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A path as text; test folders have plain names.
pub fn path_text(path: &Path) -> &str {
    path.to_str().expect("test folders have names in UTF-8")
}
