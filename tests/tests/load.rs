//! `podium bench coordinator` with few workers: every group is stored once and is well-formed. Speed is not tested.

use anyhow::{Context, Result, ensure};
use podium_tests::{Process, path_text, rows};

/// Returns the numbers in the line of a page that begins with `name`.
fn numbers(page: &str, name: &str) -> Result<Vec<f64>> {
    let line = page.lines().find(|line| line.starts_with(name));
    let line = line.with_context(|| format!("no line {name} in:\n{page}"))?;
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    Ok(line.split(|c| !is_number(c)).filter_map(|word| word.parse().ok()).collect())
}

#[test]
fn simulated_peers_complete_steps() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let load = ["bench", "coordinator", "--workers", "4", "--rate", "0", "--seconds", "2", "--tokens", "8"];
    let arguments = [&load[..], &["--out", path_text(&out)]].concat();
    let mut bench = Process::spawn("bench", "podium", &arguments, folder.path())?;
    bench.wait_for_success()?;
    let page = bench.output();
    let [_, stored, _, repeated, refused] = numbers(&page, "groups ")?[..] else {
        anyhow::bail!("other numbers in:\n{page}")
    };
    ensure!(
        stored > 0.0 && (repeated, refused) == (0.0, 0.0),
        "groups are missing, repeated or refused:\n{page}"
    );
    for name in ["submit ", "lease ", "processor ", "memory ", "store "] {
        ensure!(numbers(&page, name)?.iter().any(|&number| number > 0.0), "nothing was measured:\n{page}");
    }
    for step in rows(&out.join("metrics.jsonl"))? {
        ensure!(step["completions/well_formed"] == 1.0, "{step}");
    }

    let mut again = Process::spawn("again", "podium", &arguments, folder.path())?;
    let message = again.wait_for_failure()?;
    ensure!(message.contains("contains a run: choose another folder with --out"), "{message}");
    Ok(())
}
