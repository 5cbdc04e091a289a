//! Resource usage of this process, read from /proc on request; without /proc the metrics are absent.

use std::fs;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const MEMORY: &str = "podium_process_resident_memory_bytes";
const CPU: &str = "podium_process_cpu_milliseconds_total";
const OPEN_FILES: &str = "podium_process_open_files";

/// Milliseconds per unit of the kernel's processor times, the same on every architecture.
const MILLISECONDS_PER_TICK: u64 = 10;

pub(crate) fn describe() {
    describe_gauge!(MEMORY, Unit::Bytes, "Resident memory of this process, without GPU memory");
    describe_counter!(CPU, "CPU time of this process's threads, in milliseconds");
    describe_gauge!(OPEN_FILES, "Open files and connections of this process");
}

/// Sets the metrics to the present values.
pub(crate) fn measure() {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    if let Some(bytes) = resident_bytes(&read("status")) {
        gauge!(MEMORY).set(bytes as f64);
    }
    if let Some(milliseconds) = cpu_milliseconds(&read("stat")) {
        counter!(CPU).absolute(milliseconds);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        gauge!(OPEN_FILES).set(entries.count() as f64);
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Time in user and in kernel mode. The program's name precedes it in parentheses and may contain any text.
fn cpu_milliseconds(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, kernel) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((user + kernel) * MILLISECONDS_PER_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        let stat = "7 (a b) c) R 1 2 3 4 5 6 7 8 9 10 250 30 0 0 20 0";
        assert_eq!(cpu_milliseconds(stat), Some(2_800));
        assert_eq!(cpu_milliseconds(""), None);
    }
}
