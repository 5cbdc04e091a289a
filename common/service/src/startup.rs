//! Start-up of a process: checks of its host that would otherwise lead to a panic later, and the runtime.
//!
//! Every `main` calls [`check`] first. It refuses to start with a clock before 1970 or with too few open files,
//! and raises the limit of open files. It also makes a write beyond the file size limit fail instead of killing
//! the process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::runtime::{Builder, Runtime};

/// Minimum number of open files of a process: its files, a few connections, and those of libraries.
const LEAST_OPEN_FILES: u64 = 64;
/// The limit is not raised beyond this number: no process of Podium needs more.
const MOST_OPEN_FILES: u64 = 65_536;

/// The reasons why a process cannot start on this host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Dates before 1970 cannot be written into HTTP answers and identifiers.
    #[error("the clock of this host is {} s before 1970-01-01: set it (date, timedatectl, NTP) and start again", before.as_secs())]
    Clock {
        /// Time before 1970.
        before: Duration,
    },
    /// The limit of open files is too low and cannot be raised enough.
    #[error(
        "the limit of open files is {limit} (ulimit -Hn): expected at least {LEAST_OPEN_FILES}; raise it and start again"
    )]
    OpenFiles {
        /// The highest limit for this process.
        limit: u64,
    },
    /// The system refused threads or descriptors.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
}

/// Prepares this process, or fails if it cannot run on this host.
pub fn check() -> Result<(), Error> {
    check_clock(SystemTime::now())?;
    ignore_file_size_signal();
    raise_open_files()
}

/// The number of threads of a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Everything runs on the thread that calls `block_on`.
    One,
    /// This many threads besides the calling one.
    Some(usize),
    /// One per core.
    EveryCore,
}

/// Creates a tokio runtime; unlike `#[tokio::main]` it does not panic if the system refuses threads.
pub fn runtime(threads: Threads) -> Result<Runtime, Error> {
    let mut builder = match threads {
        Threads::One => Builder::new_current_thread(),
        Threads::Some(_) | Threads::EveryCore => Builder::new_multi_thread(),
    };
    if let Threads::Some(count) = threads {
        builder.worker_threads(count);
    }
    builder.enable_all().build().map_err(Error::Runtime)
}

fn check_clock(now: SystemTime) -> Result<(), Error> {
    match UNIX_EPOCH.duration_since(now) {
        Ok(before) if !before.is_zero() => Err(Error::Clock { before }),
        _ => Ok(()),
    }
}

/// Without this, SIGXFSZ kills a process that writes beyond `ulimit -f`; with it the write fails with EFBIG, like a
/// write to a full disk.
fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal installs no handler that could run in an unsafe state.
    #[allow(unsafe_code, reason = "std offers no way to ignore a signal")]
    // It cannot fail for a signal that may be ignored.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

fn raise_open_files() -> Result<(), Error> {
    // A system that reports no limit needs no change.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    let wanted = hard.min(MOST_OPEN_FILES);
    if wanted < LEAST_OPEN_FILES {
        return Err(Error::OpenFiles { limit: hard });
    }
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_err() && soft < LEAST_OPEN_FILES {
        return Err(Error::OpenFiles { limit: soft });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_is_named() {
        check_clock(UNIX_EPOCH).unwrap();
        check_clock(SystemTime::now()).unwrap();
        let error = check_clock(UNIX_EPOCH - Duration::from_secs(86_400)).unwrap_err().to_string();
        assert!(error.contains("86400 s before 1970-01-01: set it"), "{error}");
    }

    #[test]
    fn the_limit_of_open_files_is_raised() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, LEAST_OPEN_FILES + 32, hard).unwrap();
        check().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, hard.min(MOST_OPEN_FILES));
    }
}
