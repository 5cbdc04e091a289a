//! MovieLens 100K from its raw files: what is imported, and what random, popularity and item-kNN make of it.
//!
//! The data are in the folder `shared` beside the repository, or where `PODIUM_SHARED` says; they are no part of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use podium_tests::binary;
use serde_json::Value;

/// What others measured, with five draws of candidates: metric, negatives, and its values for the three rankers.
const PUBLISHED: [(&str, &str, [f64; 3]); 5] = [
    ("HR@1", "9", [0.100, 0.288, 0.444]),
    ("NDCG@3", "9", [0.213, 0.487, 0.638]),
    ("HR@3", "9", [0.300, 0.635, 0.776]),
    ("HR@10", "99", [0.100, 0.316, 0.515]),
    ("NDCG@10", "99", [0.045, 0.166, 0.291]),
];
const TOLERANCE: f64 = 0.01;

fn raw() -> PathBuf {
    let shared = std::env::var_os("PODIUM_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    shared.join("data/movielens-100k")
}

fn curator(arguments: &[&str]) -> Result<()> {
    let output = Command::new(binary("podium-curator")).args(arguments).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn read(file: &Path) -> Result<Value> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

#[test]
fn baselines_reproduce_the_published_table() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, figures) = (folder.path().join("movielens"), folder.path().join("baselines.json"));
    let file = |name: &str| raw().join(name).display().to_string();
    curator(&[
        "import",
        "movielens",
        "--ratings",
        &file("u.data"),
        "--items",
        &file("u.item"),
        "--summaries",
        &file("item_summaries.csv"),
        "--out",
        &data.display().to_string(),
    ])?;
    let statistics = read(&data.join("stats.json"))?;
    for (name, expected) in
        [("users", 943), ("items", 1_682), ("interactions", 100_000), ("titles_missing", 0)]
    {
        assert_eq!(statistics[name], expected, "{name}");
    }

    // Five draws leave a standard deviation of about 0.005 in a figure of ours and in the published one; forty, as here,
    // leave next to none in ours.
    curator(&[
        "baselines",
        "--data",
        &data.display().to_string(),
        "--negatives",
        "9,99",
        "--draws",
        "40",
        "--json",
        &figures.display().to_string(),
    ])?;
    let figures = read(&figures)?;
    for (metric, negatives, published) in PUBLISHED {
        let rows = figures["negatives"][negatives]["metrics"].as_array().context("a table of metrics")?;
        let row = rows.iter().find(|row| row["metric"] == metric).context("the metric's row")?;
        for (ranker, published) in ["random", "popularity", "item-kNN"].into_iter().zip(published) {
            let found = row["estimates"][ranker]["mean"].as_f64().context("a mean")?;
            println!("{metric} among {negatives} negatives, {ranker}: {found:.3}, published {published:.3}");
            assert!(
                (found - published).abs() <= TOLERANCE,
                "{metric}, {ranker}: {found}, published {published}"
            );
        }
    }
    Ok(())
}
