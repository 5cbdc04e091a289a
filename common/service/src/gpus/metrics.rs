//! Metrics of the GPU that a process computes on, sampled in the background.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use metrics::{Unit, describe_gauge, gauge};
use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::machine::{Machine, open};
use super::peak::peak;
use crate::logs;

const MEMORY_USED: &str = "podium_gpu_memory_used_bytes";
const MEMORY_TOTAL: &str = "podium_gpu_memory_total_bytes";
const UTILISATION: &str = "podium_gpu_utilisation_ratio";
const POWER: &str = "podium_gpu_power_watts";
const PEAK: &str = "podium_gpu_peak_flops_per_second";

/// Interval between two samples.
const PERIOD: Duration = Duration::from_secs(5);
/// Time limit for the end of a sample when the process exits.
const EXIT_WITHIN: Duration = Duration::from_secs(1);

/// Samples the metrics of a GPU until it is dropped.
///
/// NVML is called on a thread of its own: a slow driver delays metrics and nothing else.
#[derive(Debug)]
pub struct Sampling {
    stop: Option<Sender<()>>,
    /// Disconnected when the thread has closed NVML.
    running: Receiver<()>,
}

impl Sampling {
    /// Declares the metrics and, if `device` (`cpu`, `cuda`, `cuda:1`, `auto`) is a GPU, starts to sample it. Without a
    /// driver the metrics have no values. Must be called after the recorder is installed.
    pub fn start(device: &str) -> Self {
        describe();
        let (stop, stopped) = mpsc::channel();
        let (alive, running) = mpsc::channel();
        if let Some(number) = number(device) {
            let sample = move || {
                // Dropped after NVML, so that its end can be awaited.
                let _alive = alive;
                if let Err(reason) = sample(number, &stopped) {
                    tracing::warn!("there are no metrics of the GPU cuda:{number}: {reason}");
                }
            };
            if let Err(error) = thread::Builder::new().name("gpu-metrics".into()).spawn(sample) {
                tracing::warn!("there are no metrics of the GPU: cannot start a thread: {error}");
            }
        }
        Self { stop: Some(stop), running }
    }
}

impl Drop for Sampling {
    /// Waits until NVML is closed: the process must not exit during one of its calls.
    fn drop(&mut self) {
        self.stop = None;
        // Disconnects when the thread ends. A driver that hangs must not prevent the exit.
        let _ = self.running.recv_timeout(EXIT_WITHIN);
    }
}

/// Returns the number of a GPU among the visible ones.
fn number(device: &str) -> Option<usize> {
    match device {
        "auto" | "cuda" => Some(0),
        _ => device.strip_prefix("cuda:")?.parse().ok(),
    }
}

fn describe() {
    describe_gauge!(MEMORY_USED, Unit::Bytes, "GPU memory in use by all processes of the GPU");
    describe_gauge!(MEMORY_TOTAL, Unit::Bytes, "GPU memory");
    describe_gauge!(UTILISATION, "Fraction of time in which the GPU computed, over the driver's last sample");
    describe_gauge!(POWER, "Power draw of the GPU in watts");
    describe_gauge!(
        PEAK,
        "Dense bfloat16 operations per second of the GPU in its data sheet, if that is known"
    );
}

/// Samples until `stopped` disconnects. Ends at once on a machine without a driver.
fn sample(number: usize, stopped: &Receiver<()>) -> Result<(), String> {
    let Some(nvml) = open().map_err(|error| logs::describe(&error))? else { return Ok(()) };
    let machine = Machine::query(&nvml).map_err(|error| logs::describe(&error))?;
    let gpu = match machine.gpus.get(number) {
        Some(gpu) => gpu,
        // The process computes on the CPU, or does not start.
        None if machine.gpus.is_empty() => return Ok(()),
        None => return Err(format!("{} GPUs are visible", machine.gpus.len())),
    };
    let device = nvml.device_by_uuid(gpu.uuid.as_str()).map_err(|error| logs::describe(&error))?;
    if let Some(peak) = peak(gpu) {
        set(PEAK, &gpu.uuid, Ok(peak));
    }
    loop {
        measure(&device, &gpu.uuid);
        match stopped.recv_timeout(PERIOD) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn measure(device: &Device<'_>, uuid: &str) {
    let memory = device.memory_info();
    set(MEMORY_USED, uuid, memory.as_ref().map(|memory| memory.used as f64));
    set(MEMORY_TOTAL, uuid, memory.as_ref().map(|memory| memory.total as f64));
    let utilisation = device.utilization_rates();
    set(UTILISATION, uuid, utilisation.as_ref().map(|rates| f64::from(rates.gpu) / 100.0));
    let power = device.power_usage();
    set(POWER, uuid, power.as_ref().map(|milliwatts| f64::from(*milliwatts) / 1000.0));
}

/// A value that the GPU does not have stays absent. One that the driver fails to report is NaN, since the previous one
/// is outdated.
fn set(name: &'static str, uuid: &str, value: Result<f64, &NvmlError>) {
    let value = match value {
        Ok(value) => value,
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::NoPermission) => return,
        Err(_) => f64::NAN,
    };
    gauge!(name, "gpu" => uuid.to_owned()).set(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_name_gpus() {
        let numbers = ["cpu", "auto", "cuda", "cuda:3", "cuda:x", "gpu"].map(number);
        assert_eq!(numbers, [None, Some(0), Some(0), Some(3), None, None]);
    }

    #[test]
    fn a_process_on_the_cpu_is_not_sampled() {
        let sampling = Sampling::start("cpu");
        assert_eq!(sampling.running.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
