//! `podium-learner selfcheck`: whether a device computes what Podium expects of it, and how fast. Needs no files and no
//! network.
//!
//! Each check compares a value with a limit. Checks that need a GPU are reported as skipped on a CPU.

mod checks;
mod error;
mod rates;
mod report;
mod speed;
mod subject;

use std::io;
use std::process::Command;
use std::time::Instant;

use podium_model::device;
use tch::Device;

pub use error::Error;
pub use report::Report;
use report::{Check, Limit};

/// Options of a check.
#[derive(Debug, Clone)]
pub struct Options {
    /// `cpu`, `cuda`, `cuda:1` or `auto`.
    pub device: String,
    /// libtorch's threads.
    pub threads: usize,
    /// Whether to measure speed as well.
    pub speed: bool,
}

/// Runs all checks and measurements.
pub fn run(options: &Options) -> Result<Report, Error> {
    let began = Instant::now();
    let device = prepared(options)?;
    let mut report = Report::new(device);
    report.add(checks::all(device)?);
    let digest = checks::digest(device)?;
    let other = digest_of_another_process(options)?;
    let equal = f64::from(digest == other);
    report.add([Check::new(
        "second_process",
        "a second process computes the same bits: forward, backward and update",
        equal,
        Limit::AtLeast(1.0),
    )]);
    report.add(checks::of_gpu(device)?);
    if options.speed {
        report.speeds = speed::measure(device)?;
        report.rates = Some(rates::measure(device)?);
    }
    report.operations = Some(speed::operations(device)?);
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Returns the digest of an update's result, for a comparison between processes.
pub fn digest(options: &Options) -> Result<String, Error> {
    checks::digest(prepared(options)?)
}

fn prepared(options: &Options) -> Result<Device, Error> {
    let device = device::parse(&options.device)?;
    device::set_threads(options.threads)?;
    Ok(device)
}

/// Runs this program once more, which prints its digest.
fn digest_of_another_process(options: &Options) -> Result<String, Error> {
    let failed = |reason: String| Error::SecondProcess { reason };
    let run = || -> io::Result<_> {
        Command::new(std::env::current_exe()?)
            .args(["selfcheck", "--digest", "--device", &options.device])
            .args(["--threads", &options.threads.to_string()])
            .output()
    };
    let output = run().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
