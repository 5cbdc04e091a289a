//! The services of a run as processes of this machine: started, restarted when they die, stopped.
//!
//! Knows nothing of what a service does. Services die with this process, however it ends. They are started from the
//! thread that runs the program's one-threaded runtime: the kernel ties a child's fate to the thread that made it.

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

/// How long a service that was asked to leave may take, before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// Lines of its log that are shown when a service is given up.
const LAST_LINES: usize = 12;
/// How much of a log's end is read to find them.
const TAIL_BYTES: u64 = 16 << 10;

/// A service to run.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// For people and for the log's name: `worker-1`.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Takes standard output and error; appended to.
    pub(crate) log: PathBuf,
}

/// A service that ended otherwise than by leaving.
#[derive(Debug, Clone)]
pub(crate) struct Death {
    pub(crate) name: String,
    /// "exit code 1", "SIGKILL"
    pub(crate) how: String,
    /// Whether a signal ended it, so that it could not report a cause of its own.
    pub(crate) by_signal: bool,
    pub(crate) log: PathBuf,
}

/// What became of a service.
#[derive(Debug)]
pub(crate) enum Event {
    Started { pid: u32 },
    Died { death: Death, restart_after: Duration },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot write the log {}: {source}", path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("cannot start {}: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot wait for {name}: {source}")]
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

/// Services that are watched over together.
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

    /// Waits until a service has left (`Ok`) or is given up. Never returns once none is left.
    pub(crate) async fn next_end(&mut self) -> Result<(), Error> {
        match self.services.join_next().await {
            Some(ended) => ended.expect("a service's watch neither panics nor is cancelled"),
            None => std::future::pending().await,
        }
    }

    /// Waits at most `patience` for the services to leave by themselves, then asks them to, then kills them.
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
        // Nobody listens to events any more while everything is being stopped.
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

/// Asks a process to leave and kills it if it does not.
pub(crate) async fn end(child: &mut Child) {
    if let Some(pid) = child.id() {
        // It may have ended meanwhile: then there is nobody to tell, and the wait below returns at once.
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
    command.args(&service.arguments).stdout(log.try_clone().map_err(failed)?).stderr(log);
    command.spawn().map_err(|source| Error::Start { program: service.program.clone(), source })
}

/// A program that dies with this one, hears nothing of the terminal, and takes its run file as it is.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    // Ctrl-C reaches this process alone, which then asks every service to leave, once.
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    // The resolved run file holds what these variables say, and flags that win over them.
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
            // This program ended before the kernel was told.
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

/// The last line of a service's log, if it can be read.
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
            log: folder.join("service.log"),
        }
    }

    fn fleet() -> (Fleet, mpsc::Receiver<Event>) {
        let (events, heard) = mpsc::channel(64);
        (Fleet::new(Policy { pause: Duration::from_millis(1), ..Policy::default() }, events), heard)
    }

    #[tokio::test]
    async fn a_service_that_dies_is_started_again_and_may_then_leave() {
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
    async fn a_service_that_goes_on_dying_is_given_up_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let (mut fleet, _heard) = fleet();
        fleet.start(shell(folder.path(), "echo the disk is full; exit 3"));
        let message = fleet.next_end().await.unwrap_err().to_string();
        assert!(message.contains("died 6 times"), "{message}");
        assert!(message.contains("exit code 3") && message.contains("  the disk is full"), "{message}");
    }

    #[tokio::test]
    async fn stopping_lets_a_service_leave_in_good_order() {
        let folder = tempfile::tempdir().unwrap();
        let (mut fleet, mut heard) = fleet();
        let ready = folder.path().join("ready");
        let status = std::process::Command::new("mkfifo").arg(&ready).status().unwrap();
        assert!(status.success());
        let script = format!(
            "trap 'echo left in good order; exit 0' TERM; echo > {}; while true; do sleep 0.01; done",
            ready.display()
        );
        fleet.start(shell(folder.path(), &script));
        assert!(matches!(heard.recv().await, Some(Event::Started { .. })));
        // Returns once the script has written, that is, once it listens to the signal.
        tokio::task::spawn_blocking(move || std::fs::read(ready).unwrap()).await.unwrap();
        fleet.stop(Duration::ZERO).await;
        assert!(last_lines(&folder.path().join("service.log")).unwrap().contains("left in good order"));
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (mut fleet, _heard) = fleet();
        fleet.start(Service { program: "/nowhere/podium-x".into(), ..shell(folder.path(), "") });
        let error = fleet.next_end().await.unwrap_err();
        assert!(error.to_string().contains("cannot start /nowhere/podium-x"));
    }
}
