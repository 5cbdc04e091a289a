//! Subprocesses that answer requests: a line of JSON on standard input, a line of JSON on standard output.
//!
//! A process has one request at a time. It is killed if its answer is late or is no answer to its request, because it
//! could otherwise answer an earlier request later; the next request starts another one. The processes that it started
//! are killed with it. Its standard error is logged.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use podium_endpoint::{LONGEST_REPLY_BYTES, beginning};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::error::Failure;

/// Time in which a process that closed its output has to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval in which the exit of such a process is checked.
const EXIT_INTERVAL: Duration = Duration::from_millis(10);
/// Longest line of standard error that is read at once, in bytes.
const LONGEST_LINE_BYTES: u64 = 64 << 10;

/// The processes of a command that wait for a request; others are started when they are needed.
#[derive(Debug)]
pub(super) struct Programs {
    term: String,
    command: Vec<String>,
    directory: PathBuf,
    timeout: Duration,
    idle: Mutex<Vec<Process>>,
}

/// A process. It and the processes of its group are killed when dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The last line of its standard error.
    last_line: Arc<Mutex<String>>,
}

impl Programs {
    /// Starts a first process of `command` in `directory`. An answer may take `timeout`.
    pub(super) fn start(
        term: &str,
        command: &[String],
        directory: &Path,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        // The folder of a run file that is named without a folder.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let programs = Self {
            term: term.to_owned(),
            command: command.to_vec(),
            directory: directory.to_owned(),
            timeout,
            idle: Mutex::default(),
        };
        programs.put(programs.spawn()?);
        Ok(programs)
    }

    /// Sends a line to a process and returns what `read` makes of its answer.
    pub(super) async fn ask<T>(
        &self,
        line: &str,
        read: impl FnOnce(&[u8]) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut process = match idle {
            Some(process) => process,
            None => self.spawn()?,
        };
        let exchanged = tokio::time::timeout(self.timeout, process.exchange(line)).await;
        let answer = exchanged.unwrap_or(Err(Failure::Deadline(self.timeout)))?;
        let answer = read(&answer)?;
        self.put(process);
        Ok(answer)
    }

    fn put(&self, process: Process) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(process);
    }

    fn spawn(&self) -> Result<Process, Failure> {
        let (program, arguments) =
            self.command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        let failed = |source| Failure::Start {
            program: program.to_owned(),
            directory: self.directory.clone(),
            source,
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C in a terminal reaches the coordinator alone, which closes the input of its programs at the end.
        let mut child = command.kill_on_drop(true).process_group(0).spawn().map_err(failed)?;
        let missing = || failed(std::io::Error::other("a pipe is missing"));
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let (last_line, term) = (Arc::<Mutex<String>>::default(), self.term.clone());
        let (errors, last) = (BufReader::new(child.stderr.take().ok_or_else(missing)?), last_line.clone());
        tokio::spawn(log(term, errors, last));
        Ok(Process { child, input, output, last_line })
    }
}

impl Process {
    async fn exchange(&mut self, line: &str) -> Result<Vec<u8>, Failure> {
        let mut request = Vec::with_capacity(line.len() + 1);
        request.extend_from_slice(line.as_bytes());
        request.push(b'\n');
        let written = async {
            self.input.write_all(&request).await?;
            self.input.flush().await
        };
        // A process that reads no more has closed its output too, or never answers.
        let _ = written.await;
        let mut answer = Vec::new();
        let mut limited = (&mut self.output).take(LONGEST_REPLY_BYTES as u64);
        limited.read_until(b'\n', &mut answer).await.map_err(Failure::Read)?;
        if answer.last() == Some(&b'\n') {
            return Ok(answer);
        }
        Err(if answer.len() >= LONGEST_REPLY_BYTES { Failure::TooLong } else { self.ended().await })
    }

    async fn ended(&mut self) -> Failure {
        let exited = tokio::time::timeout(EXIT_TIMEOUT, self.exited()).await.is_ok();
        self.kill();
        let status = if exited {
            self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
        } else {
            "it closed its output".to_owned()
        };
        let line = self.last_line.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Failure::Ended { status, line }
    }

    /// Waits until the process has exited. It stays a zombie, so that no other group has its id.
    async fn exited(&self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Some(process) = self.id() {
            match waitid(Id::Pid(process), flags) {
                Ok(WaitStatus::StillAlive) => tokio::time::sleep(EXIT_INTERVAL).await,
                _ => return,
            }
        }
    }

    /// Kills the group of the process, unless its exit status was read.
    fn kill(&self) {
        if let Some(process) = self.id() {
            // Fails if all have exited.
            let _ = killpg(process, Signal::SIGKILL);
        }
    }

    /// Returns the id of the process and of its group; `None` once its exit status was read.
    fn id(&self) -> Option<Pid> {
        self.child.id().map(|id| Pid::from_raw(id as i32))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Logs the lines of a process's standard error until it ends.
async fn log(
    term: String,
    mut errors: BufReader<tokio::process::ChildStderr>,
    last_line: Arc<Mutex<String>>,
) {
    loop {
        let mut line = Vec::new();
        match (&mut errors).take(LONGEST_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let line = beginning(&String::from_utf8_lossy(&line));
        tracing::info!("reward program `{term}`: {line}");
        *last_line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn processes_that_a_program_started_are_killed_with_it() {
        for (script, told) in [
            ("sleep 60 & echo $! > pid; echo busy; wait", "busy"),
            ("sleep 60 > /dev/null 2>&1 & echo $! > pid; exit 3", "(exit status: 3)"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let command = ["sh", "-c", script].map(str::to_owned);
            let programs =
                Programs::start("judge", &command, folder.path(), Duration::from_secs(30)).unwrap();
            let read =
                |answer: &[u8]| Err::<(), _>(Failure::Answer(String::from_utf8_lossy(answer).into_owned()));
            let failure = programs.ask("{}", read).await.unwrap_err().to_string();
            assert!(failure.contains(told), "{failure}");
            let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
            let stat = format!("/proc/{}/stat", pid.trim());
            let began = Instant::now();
            while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                assert!(began.elapsed() < Duration::from_secs(20), "the process {pid} is alive");
                tokio::time::sleep(EXIT_INTERVAL).await;
            }
        }
    }
}
