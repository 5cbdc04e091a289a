//! The metrics of an evaluation and the ranks of trained baselines, recomputed with numpy from the recorded lists and
//! scores.

use std::fs;

use anyhow::{Context, Result, ensure};
use podium_tests::path_text;
use serde_json::Value;

use crate::podium::run;
use crate::reference::{self, repository};

#[test]
fn every_metric_follows_from_the_recorded_lists_and_scores() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let small = ["world.train_users=200", "world.test_users=60"];
    let small: Vec<&str> = small.iter().flat_map(|setting| ["--set", setting]).collect();
    let demo = path("demo");
    run("podium", &[&["demo", "--prepare-only", "--out", path_text(&demo)], &small[..]].concat())?;
    let run_file = demo.join("run.toml");
    let out = path("out");
    let baselines = path("baselines");

    // The evaluation creates the same data set from the run file.
    let data = path("embedded");
    run("podium-curator", &["embedded", "--out", path_text(&data), "--run-file", path_text(&run_file)])?;
    run(
        "podium-curator",
        &[
            "baselines",
            "--data",
            path_text(&data),
            "--train",
            path_text(&baselines),
            "--epochs",
            "4",
            "--threads",
            "1",
        ],
    )?;
    let start = demo.join("start");
    let arguments = [
        "evaluate",
        path_text(&run_file),
        "--policy",
        path_text(&start),
        "--against",
        path_text(&start),
        "--baselines",
        path_text(&baselines),
        "--negatives",
        "9,19",
        "--draws",
        "2",
        "--rankings",
        "generated,likelihood,catalogue",
        "--out",
        path_text(&out),
        "--set",
        "launch.rollout_device=cpu",
    ];
    run("podium", &arguments)?;

    let results = fs::read_dir(&out)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.join("evaluation.json").is_file())
        .context("no results")?;
    let report = path("report.json");
    let name = data.file_name().context("the folder has a name")?.to_string_lossy().into_owned();
    reference::run(
        &repository().join("tests/parity/metrics.py"),
        &[
            "--results",
            path_text(&results),
            "--baselines",
            path_text(&baselines),
            "--data",
            path_text(&data),
            "--name",
            &name,
            "--out",
            path_text(&report),
        ],
    )?;
    let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
    println!("{report:#}");
    let number = |name: &str| report[name].as_f64().with_context(|| format!("no {name}"));
    ensure!(number("metrics")? > 500.0 && number("differences")? > 100.0, "too few metrics: {report}");
    ensure!(number("largest")? < 1e-9, "a metric differs: {report}");
    ensure!(number("lists")? > 100.0, "too few metrics of lists: {report}");
    ensure!(number("lists_largest")? < 1e-9, "a metric of lists differs: {report}");
    // Five models, two sizes with two candidate samples each and the whole catalogue, sixty users.
    ensure!(report["ranks"] == 1_500 && report["wrong"] == 0, "ranks differ: {report}");
    ensure!(number("ease")? < 1e-4, "the scores of EASE differ: {report}");
    Ok(())
}
