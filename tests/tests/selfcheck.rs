//! `podium-learner selfcheck` on a CPU: every check that needs no GPU is made and passes, and `podium check-config --time`
//! reads the measured rates.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

#[test]
fn all_checks_of_a_cpu_pass() -> Result<()> {
    let output = Command::new(podium_tests::binary("podium-learner"))
        .args(["selfcheck", "--device", "cpu"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text)?;
    ensure!(report["passed"] == true, "{report}");
    let checks = report["checks"].as_array().context("no checks")?;
    let of = |outcome: &str| -> Vec<&str> {
        let checks = checks.iter().filter(|check| check["outcome"] == outcome);
        checks.filter_map(|check| check["name"].as_str()).collect()
    };
    let passed = [
        "forward_float32",
        "forward_bfloat16",
        "gradients_float32",
        "gradients_bfloat16",
        "update_float32",
        "sampler_float32",
        "sampler_bfloat16",
        "second_process",
    ];
    ensure!(of("passed") == passed, "{report}");
    ensure!(of("skipped") == ["out_of_memory", "nccl", "memory"], "{report}");
    ensure!(report["operations"]["kernels"].as_f64().is_some_and(|kernels| kernels > 0.0), "{report}");

    let folder = tempfile::tempdir()?;
    let (rates, run_file) = (folder.path().join("rates.json"), folder.path().join("run.toml"));
    std::fs::write(&rates, text.as_bytes())?;
    std::fs::write(&run_file, "")?;
    let output = Command::new(podium_tests::binary("podium"))
        .args(["check-config", "--prompt-tokens", "100", "--time"])
        .args([&rates, &run_file])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(text.contains("time of a step on 1 x cpu") && text.contains("bottleneck: "), "{text}");
    Ok(())
}
