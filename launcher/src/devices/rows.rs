//! The printed form of the device table.

use std::fmt::Write as _;

use podium_service::gpus::Machine;

use super::placement::{has_shares, share};

/// The device of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    Cpu,
    /// A visible GPU, by its number.
    Gpu(usize),
    /// A process for which there is no GPU, in the table of an error.
    Missing,
}

/// Returns the names of the processes with their devices.
pub(super) fn processes(ranks: &[Device], workers: &[Device]) -> Vec<(String, Device)> {
    let ranks = ranks.iter().enumerate().map(|(rank, device)| (format!("learner-{rank}"), *device));
    let workers = workers.iter().zip(1..).map(|(device, number)| (format!("worker-{number}"), *device));
    ranks.chain(workers).collect()
}

/// Returns a row for each device: its name, the GPU, and the processes that use it. Every row starts with a newline.
pub(super) fn rows(machine: &Machine, processes: &[(String, Device)]) -> String {
    let users = |device: Device| {
        let names: Vec<&str> =
            processes.iter().filter(|(_, own)| *own == device).map(|(name, _)| name.as_str()).collect();
        match (device, names.len()) {
            (Device::Gpu(_), 2..) if has_shares() => {
                let percent = 100.0 * share(names.len());
                format!("{}: {percent:.0} % of the memory each", names.join(", "))
            }
            _ => names.join(", "),
        }
    };
    let mut rows: Vec<[String; 3]> = Vec::new();
    for (index, gpu) in machine.gpus.iter().enumerate() {
        let number = gpu.index.map_or_else(|| gpu.uuid.clone(), |number| format!("GPU {number}"));
        let memory = gpu.memory_bytes.map(|bytes| format!(", {:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        let users = users(Device::Gpu(index));
        let users = if users.is_empty() { "not used".to_owned() } else { users };
        let what = format!("{number}, {}{}", gpu.name, memory.unwrap_or_default());
        rows.push([format!("cuda:{index}"), what, users]);
    }
    for (device, name) in [(Device::Cpu, "cpu"), (Device::Missing, "no GPU")] {
        let users = users(device);
        if !users.is_empty() {
            rows.push([name.to_owned(), String::new(), users]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    rows.iter().fold(String::new(), |mut text, [device, what, users]| {
        let _ = write!(text, "\n  {device:first$}  {what:second$}  {users}");
        text
    })
}
