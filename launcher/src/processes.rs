//! The services of a run as processes of this machine: start, restart after death, stop.
//!
//! Independent of the services' functions. Services die with this process in every case. They are started from the
//! thread of the program's single-threaded runtime: the kernel binds a child's fate to the thread that created it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::restart::{History, Policy, Verdict};

/// Time limit of a service's shutdown, after which it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// Number of log lines that are shown when a service fails permanently.
const LAST_LINES: usize = 12;
/// Number of bytes at the end of a log that are searched for them.
const TAIL_BYTES: u64 = 16 << 10;

/// A service to run.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// Name in messages and of the log: `worker-1`.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Variables in addition to this program's environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Receives standard output and error; appended to.
    pub(crate) log: PathBuf,
}

/// A service that exited other than by a shutdown.
#[derive(Debug, Clone)]
pub(crate) struct Death {
    pub(crate) name: String,
    /// "exit code 1", "SIGKILL"
    pub(crate) how: String,
    /// Whether a signal killed it, so that it could not report a cause of its own.
    pub(crate) by_signal: bool,
    pub(crate) log: PathBuf,
}

/// An event of a service.
#[derive(Debug)]
pub(crate) enum Event {
    Started { pid: u32 },
    Died { death: Death, restart_after: Duration },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot write the log {}", path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot wait for {name}")]
    Wait { name: String, source: io::Error },
    #[error(
        "{} died{} ({}); its log {} ends with:\n{tail}", death.name,
        if *deaths > 1 { format!(" {deaths} times within a minute") } else { String::new() },
        death.how, death.log.display()
    )]
    GivenUp { death: Death, deaths: usize, tail: String },
}

impl Error {
    pub(crate) fn given_up(death: Death, deaths: usize) -> Self {
        let tail = last_lines(&death.log).unwrap_or_else(|error| format!("(unreadable: {error})"));
        Self::GivenUp { death, deaths, tail }
    }
}

/// A supervised set of services.
#[derive(Debug)]
pub(crate) struct Fleet {
    policy: Policy,
    events: mpsc::Sender<Event>,
    leave: CancellationToken,
    services: JoinSet<Result<(), Error>>,
}

impl Fleet {
    pub(crate) fn new(policy: Policy, events: mpsc::Sender<Event>) -> Self {
        Self { policy, events, leave: CancellationToken::new(), services: JoinSet::new() }
    }

    pub(crate) fn start(&mut self, service: Service) {
        self.services.spawn(watch_over(service, self.policy, self.leave.clone(), self.events.clone()));
    }

    /// Waits until a service has exited (`Ok`) or failed permanently. Never returns once none is left.
    pub(crate) async fn next_end(&mut self) -> Result<(), Error> {
        match self.services.join_next().await {
            Some(ended) => ended.expect("a service's watch neither panics nor is cancelled"),
            None => std::future::pending().await,
        }
    }

    /// Waits at most `patience` for the services to exit, then sends SIGTERM, then kills them.
    pub(crate) async fn stop(mut self, patience: Duration) {
        let all_left = async { while self.services.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all_left).await.is_err() {
            self.leave.cancel();
            while self.services.join_next().await.is_some() {}
        }
    }
}

async fn watch_over(
    service: Service,
    policy: Policy,
    leave: CancellationToken,
    events: mpsc::Sender<Event>,
) -> Result<(), Error> {
    let began = Instant::now();
    let mut history = History::new(policy);
    loop {
        let mut child = spawn(&service)?;
        // The receiver of events may be gone during a shutdown.
        let _ = events.send(Event::Started { pid: child.id().unwrap_or(0) }).await;
        let status = tokio::select! {
            status = child.wait() => status.map_err(|source| Error::Wait { name: service.name.clone(), source })?,
            () = leave.cancelled() => {
                end(&mut child).await;
                return Ok(());
            }
        };
        if status.success() {
            return Ok(());
        }
        let death = Death {
            name: service.name.clone(),
            how: describe(status),
            by_signal: status.signal().is_some(),
            log: service.log.clone(),
        };
        let after = match history.died(began.elapsed()) {
            Verdict::Restart { after } => after,
            Verdict::GiveUp { deaths } => return Err(Error::given_up(death, deaths)),
        };
        let _ = events.send(Event::Died { death, restart_after: after }).await;
        tokio::select! {
            () = tokio::time::sleep(after) => {}
            () = leave.cancelled() => return Ok(()),
        }
    }
}

/// Runs a program with this program's output until it exits; returns `None` if `stop` was cancelled, which ends it.
pub(crate) async fn foreground(
    name: &str,
    program: &Path,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
    stop: &CancellationToken,
) -> Result<Option<ExitStatus>, Error> {
    let mut child = command(program)
        .args(arguments)
        .envs(environment)
        .spawn()
        .map_err(|source| Error::Start { program: program.to_owned(), source })?;
    tokio::select! {
        status = child.wait() => {
            status.map(Some).map_err(|source| Error::Wait { name: name.into(), source })
        }
        () = stop.cancelled() => {
            end(&mut child).await;
            Ok(None)
        }
    }
}

/// Sends SIGTERM to a process and kills it after a timeout.
pub(crate) async fn end(child: &mut Child) {
    if let Some(pid) = child.id() {
        // It may have exited meanwhile: then the signal fails, and the wait below returns at once.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn spawn(service: &Service) -> Result<Child, Error> {
    let failed = |source| Error::Log { path: service.log.clone(), source };
    let log = OpenOptions::new().create(true).append(true).open(&service.log).map_err(failed)?;
    let mut command = command(&service.program);
    command.args(&service.arguments).envs(service.environment.iter().cloned());
    command.stdout(log.try_clone().map_err(failed)?).stderr(log);
    command.spawn().map_err(|source| Error::Start { program: service.program.clone(), source })
}

/// Returns a command for a program that dies with this one, is detached from the terminal, and reads its run file
/// unchanged.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    // Only this process receives Ctrl-C; it then stops every service once.
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    // The resolved run file contains these variables' values, and flags that take precedence over them.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PODIUM_") && text.contains("__") {
            command.env_remove(&name);
        }
    }
    let parent = Pid::this();
    let die_with_parent = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            // This program exited before the parent-death signal was set.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls; it neither allocates nor locks.
    #[allow(unsafe_code, reason = "std offers no other way to set the parent-death signal")]
    unsafe {
        command.pre_exec(die_with_parent);
    }
    command
}

pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
        }
        (None, None) => status.to_string(),
    }
}

/// Returns the last line of a service's log, if it can be read.
pub(crate) fn last_line(log: &Path) -> Option<String> {
    Some(last_lines(log).ok()?.lines().last()?.trim().to_owned())
}

fn last_lines(path: &Path) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..]
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Service {
        Service {
            name: "service".into(),
            program: "/bin/sh".into(),
            arguments: ["-c", script].map(OsString::from).to_vec(),
            environment: Vec::new(),
            log: folder.join("service.log"),
        }
    }

    fn fleet() -> (Fleet, mpsc::Receiver<Event>) {
        let (events, heard) = mpsc::channel(64);
        (Fleet::new(Policy { pause: Duration::from_millis(1), ..Policy::default() }, events), heard)
    }

    #[tokio::test]
    async fn a_dead_service_is_restarted_and_may_then_exit() {
        let folder = tempfile::tempdir().unwrap();
        let (mut fleet, mut heard) = fleet();
        let script = format!("cd {} && if mkdir once; then kill -9 $$; fi", folder.path().display());
        fleet.start(shell(folder.path(), &script));
        fleet.next_end().await.unwrap();
        assert!(matches!(heard.recv().await, Some(Event::Started { .. })));
        assert!(matches!(heard.recv().await, Some(Event::Died { death, .. }) if death.how == "SIGKILL"));
        assert!(matches!(heard.recv().await, Some(Event::Started { .. })));
    }

    #[tokio::test]
    async fn a_repeatedly_dying_service_fails_with_its_last_log_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (mut fleet, _heard) = fleet();
        fleet.start(shell(folder.path(), "echo the disk is full; exit 3"));
        let message = fleet.next_end().await.unwrap_err().to_string();
        assert!(message.contains("died 6 times"), "{message}");
        assert!(message.contains("exit code 3") && message.contains("  the disk is full"), "{message}");
    }

    #[tokio::test]
    async fn stopping_shuts_a_service_down_gracefully() {
        let folder = tempfile::tempdir().unwrap();
        let (mut fleet, mut heard) = fleet();
        let ready = folder.path().join("ready");
        let status = std::process::Command::new("mkfifo").arg(&ready).status().unwrap();
        assert!(status.success());
        let script = format!(
            "trap 'echo shut down gracefully; exit 0' TERM; echo > {}; while true; do sleep 0.01; done",
            ready.display()
        );
        fleet.start(shell(folder.path(), &script));
        assert!(matches!(heard.recv().await, Some(Event::Started { .. })));
        // Returns once the script has written, that is, once it handles the signal.
        tokio::task::spawn_blocking(move || std::fs::read(ready).unwrap()).await.unwrap();
        fleet.stop(Duration::ZERO).await;
        assert!(last_lines(&folder.path().join("service.log")).unwrap().contains("shut down gracefully"));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (mut fleet, _heard) = fleet();
        fleet.start(Service { program: "/nowhere/podium-x".into(), ..shell(folder.path(), "") });
        let error = fleet.next_end().await.unwrap_err();
        assert!(error.to_string().contains("cannot start /nowhere/podium-x"));
    }
}
