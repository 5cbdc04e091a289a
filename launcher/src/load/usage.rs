//! Memory and processor time of a process, from `/proc`, and the limit of open files.

use std::fs;
use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit};

use super::error::Error;

/// Open files of a process other than the connections of simulated peers.
const OTHER_FILES: u64 = 100;

/// Units of `/proc` per second of processor time, the same on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Use of resources by a process since its start.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Usage {
    /// Seconds of processor time of all threads.
    pub(super) cpu_seconds: f64,
    /// Largest resident memory so far, in bytes.
    pub(super) peak_bytes: u64,
}

impl Usage {
    /// Reads the use of a running process.
    pub(super) fn of(pid: u32) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = PathBuf::from(format!("/proc/{pid}/{name}"));
            fs::read_to_string(&path).map_err(|source| Error::Usage { path, source })
        };
        Ok(Self { cpu_seconds: cpu_seconds(&read("stat")?), peak_bytes: peak_bytes(&read("status")?) })
    }
}

fn cpu_seconds(stat: &str) -> f64 {
    // The name in parentheses may contain spaces. After it, utime and stime are the 12th and 13th fields.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn peak_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Checks that processes with this number of simulated workers can open enough files. The limit was raised at the
/// start of this process, and the coordinator inherits it.
pub(super) fn check_open_files(workers: u32) -> Result<(), Error> {
    let needed = u64::from(workers) + OTHER_FILES;
    // A system that reports no limit has none.
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if limit < needed => Err(Error::OpenFiles { workers, needed, limit }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_use_of_a_process_is_read() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 3 0 5 6 7";
        assert!((cpu_seconds(stat) - 4.0).abs() < 1e-9);
        assert_eq!(peak_bytes("VmPeak:\t 9 kB\nVmHWM:\t    12 kB\n"), 12 << 10);
        let own = Usage::of(std::process::id()).unwrap();
        assert!(own.peak_bytes > 1 << 20 && own.cpu_seconds >= 0.0);
    }

    #[test]
    fn too_many_workers_for_the_limit_are_refused_by_name() {
        check_open_files(1).unwrap();
        let error = check_open_files(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("4294967295 simulated workers") && error.contains("ulimit -Hn"), "{error}");
    }
}
