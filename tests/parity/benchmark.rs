//! The benchmark (`deploy/benchmark`) at its smallest size: every measurement is taken, and both sides compute the
//! same.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use podium_tests::{Process, binary, path_text};
use serde_json::Value;

use crate::reference::{interpreter, repository};

#[test]
fn the_benchmark_measures_and_compares_both_sides() -> Result<()> {
    let report = measure(&[])?;
    let tiny = &report["shapes"]["tiny"];
    for what in ["sampling", "step"] {
        let ratio = tiny[what]["ratio"].as_f64().with_context(|| format!("{what} has no ratio: {tiny}"))?;
        ensure!(ratio.is_finite() && ratio > 0.0, "{what}: the ratio is {ratio}");
        check_peaks(tiny, what, 2)?;
    }
    for pair in ["podium-transformers", "sampler-podium"] {
        check_gap(tiny, pair)?;
    }
    Ok(())
}

#[test]
fn the_benchmark_measures_podium_alone() -> Result<()> {
    let report = measure(&["--no-peers", "--time-limit", "600"])?;
    let tiny = &report["shapes"]["tiny"];
    for what in ["sampling", "step"] {
        ensure!(tiny[what]["seconds"]["podium"].as_f64() > Some(0.0), "{what}: {tiny}");
        check_peaks(tiny, what, 1)?;
    }
    check_gap(tiny, "sampler-podium")
}

/// Runs the benchmark at its smallest size; returns its report.
fn measure(options: &[&str]) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let programs = binary("podium").parent().context("a program is in a folder")?.to_owned();
    let python = interpreter()?;
    let mut command = Command::new(&python);
    let script = repository().join("deploy/benchmark/benchmark.py");
    command.arg(script).args(["--python", path_text(&python), "--programs", path_text(&programs)]);
    let size = "--device cpu --shapes tiny --prompts 2 --prompt-tokens 40 --completions 4 --new-tokens 8";
    let rounds = "--rounds 1 --batches 1 --steps 1";
    command.args(size.split(' ')).args(rounds.split(' ')).args(["--out", path_text(&out)]).args(options);
    Process::start("benchmark", command, folder.path())?.wait_for_success()?;

    let report: Value = serde_json::from_slice(&fs::read(out.join("benchmark.json"))?)?;
    ensure!(report["failures"] == Value::Array(Vec::new()), "{}", report["failures"]);
    Ok(report)
}

/// Checks that the memory of so many sides was measured.
fn check_peaks(shape: &Value, what: &str, sides: usize) -> Result<()> {
    let peaks = shape[what]["resident_bytes"].as_object().context("no memory")?;
    ensure!(peaks.len() == sides && peaks.values().all(|peak| peak.as_u64() > Some(1 << 20)), "{peaks:?}");
    Ok(())
}

fn check_gap(shape: &Value, pair: &str) -> Result<()> {
    let gap = &shape["logprobs"][pair];
    ensure!(gap["tokens"] == 2 * 4 * 8, "{pair}: {gap}");
    let largest = gap["largest"].as_f64().context("no difference")?;
    ensure!(largest < 1e-4, "{pair}: log-probabilities differ by {largest:e}");
    Ok(())
}
