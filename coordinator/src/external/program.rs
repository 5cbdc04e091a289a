//! Subprocesses that answer requests: a line of JSON on standard input, a line of JSON on standard output.
//!
//! A process has one request at a time. It is killed if its answer is late or is no answer to its request, because it
//! could otherwise answer an earlier request later; the next request starts another one. Its standard error is logged.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podium_endpoint::{LONGEST_REPLY_BYTES, beginning};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::error::Failure;

/// Time in which a process that closed its output has to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
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

/// A process. It is killed when dropped.
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
        let status = match tokio::time::timeout(EXIT_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its output".to_owned(),
        };
        let line = self.last_line.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Failure::Ended { status, line }
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
