//! MovieLens 100K from its raw files: the import, and the metrics of random, popularity and item-kNN.
//!
//! The data are in the folder `shared` beside the repository, or in that of `PODIUM_SHARED`; they are not part of the
//! repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use podium_tests::{binary, path_text};
use serde_json::Value;

/// Published metrics with interactions at the same time in the order of item numbers, and five candidate samples:
/// metric, negatives, and the values of the three rankers.
const PUBLISHED: [(&str, &str, [f64; 3]); 5] = [
    ("HR@1", "9", [0.100, 0.288, 0.444]),
    ("NDCG@3", "9", [0.213, 0.487, 0.638]),
    ("HR@3", "9", [0.300, 0.635, 0.776]),
    ("HR@10", "99", [0.100, 0.316, 0.515]),
    ("NDCG@10", "99", [0.045, 0.166, 0.291]),
];
/// An independent computation of HR@1 and NDCG@3 among nine negatives, with 40 candidate samples: the order of
/// interactions at the same time, and the values of popularity and of item-kNN.
const ORDERS: [(&str, [[f64; 2]; 2]); 3] = [
    ("random", [[0.357, 0.559], [0.519, 0.700]]),
    ("item", [[0.292, 0.487], [0.453, 0.645]]),
    ("file", [[0.366, 0.564], [0.528, 0.707]]),
];
/// Number of targets at the same time as the previous item.
const TIED_TARGETS: u64 = 415;
const TOLERANCE: f64 = 0.01;

fn shared() -> PathBuf {
    std::env::var_os("PODIUM_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from)
}

/// Runs the curator and returns its output.
fn curator(arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary("podium-curator")).args(arguments).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Imports the raw files, with one-sentence summaries as captions, into `<folder>/movielens`. `order` is the order of
/// interactions at the same time.
fn import(folder: &Path, order: &str) -> Result<PathBuf> {
    let data = folder.join("movielens");
    let file = |name: &str| shared().join("data/movielens-100k").join(name).display().to_string();
    let (ratings, items, summaries) = (file("u.data"), file("u.item"), file("item_summaries.csv"));
    let sources = ["--ratings", &ratings, "--items", &items, "--summaries", &summaries];
    curator(
        &[
            &["import", "movielens"],
            &sources[..],
            // The published metrics count every interaction but the test target as training data.
            &["--same-time", order, "--no-validation", "--out", path_text(&data)],
        ]
        .concat(),
    )?;
    Ok(data)
}

fn read(file: &Path) -> Result<Value> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

#[test]
fn baselines_reproduce_the_published_table() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, baselines) = (import(folder.path(), "item")?, folder.path().join("baselines.json"));
    let statistics = read(&data.join("stats.json"))?;
    for (name, expected) in
        [("users", 943), ("items", 1_682), ("interactions", 100_000), ("titles_missing", 0)]
    {
        assert_eq!(statistics[name], expected, "{name}");
    }

    // Five candidate samples have a standard deviation of about 0.005 in our metrics and in the published ones; with
    // forty, as here, ours is negligible.
    let draws = ["--negatives", "9,99", "--draws", "40"];
    let files = ["--data", path_text(&data), "--validation", "none", "--json", path_text(&baselines)];
    curator(&[&["baselines"], &draws[..], &files].concat())?;
    let baselines = read(&baselines)?;
    for (metric, negatives, published) in PUBLISHED {
        let rows = baselines["negatives"][negatives]["metrics"].as_array().context("a table of metrics")?;
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

/// The order of interactions at the same time decides which target is held out for 415 users, and changes every
/// ranker's metrics.
#[test]
fn each_order_of_interactions_at_the_same_time_has_its_metrics() -> Result<()> {
    for (order, expected) in ORDERS {
        let folder = tempfile::tempdir()?;
        let (data, baselines) = (import(folder.path(), order)?, folder.path().join("baselines.json"));
        let statistics = read(&data.join("stats.json"))?;
        assert_eq!(statistics["targets_at_same_time"], TIED_TARGETS);
        assert_eq!(statistics["same_time_order"], order);
        let files = ["--data", path_text(&data), "--validation", "none", "--json", path_text(&baselines)];
        curator(&[&["baselines", "--negatives", "9", "--draws", "40"][..], &files].concat())?;
        let baselines = read(&baselines)?;
        let rows = baselines["negatives"]["9"]["metrics"].as_array().context("a table of metrics")?;
        for (ranker, values) in ["popularity", "item-kNN"].into_iter().zip(expected) {
            for (metric, expected) in ["HR@1", "NDCG@3"].into_iter().zip(values) {
                let row = rows.iter().find(|row| row["metric"] == metric).context("the metric's row")?;
                let found = row["estimates"][ranker]["mean"].as_f64().context("a mean")?;
                println!("{metric} of 10 in {order} order, {ranker}: {found:.3}, expected {expected:.3}");
                assert!((found - expected).abs() <= TOLERANCE, "{order}, {metric}, {ranker}: {found}");
            }
        }
    }
    Ok(())
}

/// Prompts in words, with Qwen3's own tokenizer and chat template, under a budget that most of them exceed.
#[test]
fn prompts_fit_their_budget_in_tokens_of_a_real_tokenizer() -> Result<()> {
    const BUDGET: usize = 512;
    let folder = tempfile::tempdir()?;
    let data = import(folder.path(), "random")?;
    let run_file = folder.path().join("run.toml");
    fs::write(&run_file, format!("[data]\ndir = {:?}\nsplit = \"times\"\n", path_text(&data)))?;
    let tokenizer = shared().join("qwen3-tokenizer");
    let prompts = |more: &[&str]| {
        let arguments = ["prompts", path_text(&run_file), "--tokenizer", path_text(&tokenizer)];
        curator(&[&arguments[..], more].concat())
    };
    let longest = |report: &str| -> Result<Vec<usize>> {
        let lengths = report.lines().filter(|line| line.trim_start().starts_with("lengths"));
        let longest = lengths.map(|line| {
            let range = line.split_once('…').context("no range")?.1;
            let number = range.split_whitespace().next().context("no longest")?;
            Ok(number.parse()?)
        });
        longest.collect()
    };
    let free = prompts(&[])?;
    ensure!(free.contains("in tokens"), "{free}");
    ensure!(longest(&free)?.iter().all(|&tokens| tokens > BUDGET), "the budget has no effect: {free}");

    let budget = format!("prompt.max_tokens={BUDGET}");
    let held = prompts(&["--set", &budget, "--show", "1"])?;
    ensure!(longest(&held)?.iter().all(|&tokens| (BUDGET / 2..=BUDGET).contains(&tokens)), "{held}");
    ensure!(!held.contains("captions shortened        0\n"), "{held}");
    ensure!(held.matches("over the budget           0").count() == 3, "{held}");
    // Despite shortening, ten candidates and the instruction are present.
    for prompt in held.split("── user ").skip(1) {
        let (_, candidates) =
            prompt.split_once("One of these candidates comes next:").context("no candidates")?;
        ensure!(candidates.lines().filter(|line| line.starts_with("[ITEM_")).count() >= 10, "{prompt}");
        ensure!(prompt.contains("between <think> and </think>"), "{prompt}");
    }
    Ok(())
}
