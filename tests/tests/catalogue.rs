//! `podium evaluate` with the whole catalogue and with protocols of the literature.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use podium_tests::{Process, path_text, rows};
use serde_json::Value;

use crate::evaluate::{Prepared, USERS, metrics, parts, ranker, recomputed};

#[test]
fn policies_rank_the_whole_catalogue() -> Result<()> {
    let prepared = Prepared::new()?;
    let start = prepared.start_policy();
    let only = ["--rankings", "catalogue"];
    let (said, results) = prepared.evaluate(&start, "out", &only)?;
    ensure!(said.contains("all items outside the history as candidates"), "{said}");
    ensure!(said.contains("demo/start, likelihood less item-kNN"), "a paired comparison is printed: {said}");
    ensure!(parts(&prepared.path("out"))?.len() == 1, "one part, and no candidate lists");

    let answers = rows(parts(&prepared.path("out"))?.values().next().context("no part")?)?;
    let (metrics, lists) = (metrics(&results)?, rows(&results.join("lists.jsonl"))?);
    ensure!(answers.len() == USERS && lists.len() == USERS, "a line for each user");
    let mut ranks = BTreeSet::new();
    for (answer, list) in answers.iter().zip(&lists) {
        ensure!(list["negatives"] == "catalogue" && list["candidates"].is_null(), "{list}");
        let own = ranker(list, "demo/start", "likelihood").context("the policy has no ranking")?;
        ensure!(own["rank"] == answer["rank"] && own["first"] == answer["top"][0], "{list} is not {answer}");
        let rank = answer["rank"].as_u64().context("no rank")?;
        let scores: Vec<f64> =
            answer["top_scores"].as_array().context("no scores")?.iter().filter_map(Value::as_f64).collect();
        ensure!(scores.is_sorted_by(|one, other| one >= other), "{answer}");
        // The embedded policy has one token for each item: the probabilities are those of one softmax.
        ensure!(scores.iter().map(|score| score.exp()).sum::<f64>() < 1.0 + 1e-6, "{answer}");
        if let Some(top) = scores.get(rank as usize - 1) {
            ensure!(answer["score"].as_f64() == Some(*top), "{answer}");
        }
        ensure!(
            ["random", "popularity", "item-kNN"].iter().all(|name| ranker(list, name, "baseline").is_some()),
            "{list}"
        );
        ranks.insert(rank);
    }
    ensure!(ranks.len() > 3, "the policy ranks all targets the same: {ranks:?}");

    let mut checked = 0;
    for row in metrics.iter().filter(|row| row["against"].is_null()) {
        ensure!(row["negatives"] == "catalogue", "{row}");
        if let Some((value, users)) = recomputed(row, &lists) {
            let found = row["estimate"].as_f64().context("no estimate")?;
            ensure!((found - value).abs() < 1e-12 && row["n"] == users, "{row}, expected {value} of {users}");
            checked += 1;
        }
    }
    ensure!(checked > 50, "only {checked} metrics were recomputed");
    let has = |metric: &str, k: u64| metrics.iter().any(|row| row["metric"] == metric && row["k"] == k);
    for metric in ["HR", "NDCG", "MRR", "coverage", "gini", "novelty", "diversity"] {
        ensure!(has(metric, 20), "no {metric}@20");
    }
    ensure!(!has("first_at", 1), "positions in a list that no prompt shows are no probe");
    let page = fs::read_to_string(results.join("report.html"))?;
    ensure!(page.contains("whole catalogue, test users"), "the page has no section of the catalogue");

    // The same ranking is reused beside candidate lists, and the mean over tokens is another one.
    let more = ["--rankings", "generated,catalogue", "--draws", "1", "--reversed", "0"];
    let (said, other) = prepared.evaluate(&start, "out", &more)?;
    ensure!(said.contains("reusing 1 of 2 parts"), "{said}");
    let of_catalogue = |results: &std::path::Path| -> Result<Vec<Value>> {
        let all = rows(&results.join("lists.jsonl"))?;
        Ok(all.into_iter().filter(|list| list["negatives"] == "catalogue").collect())
    };
    ensure!(of_catalogue(&other)? == lists, "the ranking of the catalogue changed");
    let mean = [&only[..], &["--set", "evaluation.likelihood_length=mean"]].concat();
    prepared.evaluate(&start, "out", &mean)?;
    ensure!(parts(&prepared.path("out"))?.len() == 3, "another length has the same key");
    for option in [["--negatives", "9"], ["--protocol", "llara"]] {
        let refused = prepared.start(&start, "out", &[&only[..], &option].concat())?.wait_for_failure()?;
        ensure!(refused.contains("--protocol and --negatives require --rankings generated"), "{refused}");
    }
    // Items have one token each.
    let (_, again) = prepared.evaluate(&start, "out", &mean)?;
    ensure!(of_catalogue(&again)? == lists, "the mean of one token differs from the sum");
    Ok(())
}

#[test]
fn another_process_may_rank_the_catalogue() -> Result<()> {
    let prepared = Prepared::new()?;
    let start = prepared.start_policy();
    let only = ["--rankings", "catalogue", "--set", "evaluation.prompts_per_lease=5"];
    let (_, results) = prepared.evaluate(&start, "undisturbed", &only)?;
    let lists = fs::read(results.join("lists.jsonl"))?;

    let said = {
        let prepare = [&only[..], &["--prepare-only"]].concat();
        let mut process = prepared.start(&start, "out", &prepare)?;
        process.wait_for_success()?;
        process.output()
    };
    ensure!(said.contains("podium-rollout-worker rank-catalogue --run-file"), "{said}");
    let work = fs::read_dir(prepared.path("out").join("work"))?.next().context("no work folder")??.path();
    let output = work.join("answers/0.jsonl");
    let run_file = work.join("run.toml");
    let arguments = [
        "rank-catalogue",
        "--run-file",
        path_text(&run_file),
        "--output",
        path_text(&output),
        "--device",
        "cpu",
    ];
    let folder = prepared.path("demo");
    Process::spawn("rank", "podium-rollout-worker", &arguments, &folder)?.wait_for_success()?;
    let complete = fs::read_to_string(&output)?;
    let refused = {
        let broken =
            [&arguments[..], &["--set", "evaluation.users=0", "--set", "model.path=missing"]].concat();
        let mut process = Process::spawn("broken", "podium-rollout-worker", &broken, &folder)?;
        process.wait_for_failure()?
    };
    ensure!(refused.contains("missing"), "{refused}");
    ensure!(fs::read_to_string(&output)? == complete, "a failed call changed the output");
    let (_, collected) = prepared.evaluate(&start, "out", &only)?;
    ensure!(fs::read(collected.join("lists.jsonl"))? == lists, "a ranking by another process differs");
    Ok(())
}

#[test]
fn protocols_determine_lists_and_metrics() -> Result<()> {
    let prepared = Prepared::new()?;
    let start = prepared.start_policy();
    let protocols = [
        "--protocol",
        "llara,negatives-9",
        "--draws",
        "1",
        "--reversed",
        "0",
        "--set",
        "candidates.negatives=popularity",
    ];
    let (said, results) = prepared.evaluate(&start, "out", &protocols)?;
    ensure!(said.contains("HR@1 of valid"), "{said}");
    let evaluation: Value = serde_json::from_slice(&fs::read(results.join("evaluation.json"))?)?;
    ensure!(evaluation["protocols"] == serde_json::json!(["llara", "negatives-9"]), "{evaluation}");
    ensure!(evaluation["negatives_drawn"] == "uniform", "a protocol has random negatives");
    let (metrics, lists) = (metrics(&results)?, rows(&results.join("lists.jsonl"))?);
    let counts: BTreeSet<usize> =
        lists.iter().filter_map(|list| Some(list["candidates"].as_array()?.len())).collect();
    ensure!(counts == BTreeSet::from([10, 20]), "{counts:?}");
    let find = |metric: &str, negatives: u64, ranking: &str, k: Option<u64>| {
        metrics.iter().find(|row| {
            row["metric"] == metric
                && row["negatives"] == negatives
                && row["ranking"] == ranking
                && row["k"].as_u64() == k
                && row["against"].is_null()
                && row["slice"] == "all"
        })
    };
    ensure!(
        find("NDCG", 19, "likelihood", Some(20)).is_some()
            && find("HR", 19, "likelihood", Some(20)).is_none()
    );
    let valid = find("valid", 19, "generated", None).context("no ratio of valid answers")?;
    let named: Vec<bool> = lists
        .iter()
        .filter(|list| list["negatives"] == 19)
        .filter_map(|list| Some(!ranker(list, "demo/start", "generated")?["named"].is_null()))
        .collect();
    ensure!(named.len() == USERS, "{} lists", named.len());
    let share = named.iter().filter(|named| **named).count() as f64 / USERS as f64;
    ensure!(
        valid["estimate"].as_f64().is_some_and(|found| (found - share).abs() < 1e-12),
        "{valid}, not {share}"
    );
    let of_valid = find("valid_HR", 19, "generated", Some(1)).context("no HR@1 of valid answers")?;
    ensure!(of_valid["n"] == named.iter().filter(|named| **named).count(), "{of_valid}");

    // The lists are a function of the seed.
    let (_, other) = prepared.evaluate(
        &start,
        "other",
        &[&protocols[..], &["--set", "candidates.evaluation_seed=3"]].concat(),
    )?;
    let (_, again) = prepared.evaluate(&start, "again", &protocols)?;
    let candidates = |results: &std::path::Path| -> Result<Vec<Value>> {
        Ok(rows(&results.join("lists.jsonl"))?.iter().map(|list| list["candidates"].clone()).collect())
    };
    ensure!(candidates(&again)? == candidates(&results)? && candidates(&other)? != candidates(&results)?);
    Ok(())
}
