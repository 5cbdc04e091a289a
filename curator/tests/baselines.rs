//! The baselines and prompts commands, from a data folder to a table and a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn curator(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_podium-curator")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn baselines(folder: &Path, data: &str, more: &[&str]) -> (String, Value) {
    let file = folder.join("baselines.json").display().to_string();
    let mut arguments =
        vec!["baselines", "--data", data, "--negatives", "9,49", "--users", "200", "--json", &file];
    arguments.extend(more);
    let table = curator(&arguments);
    (table, serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap())
}

#[test]
fn each_number_of_negatives_has_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("world").display().to_string();
    curator(&["embedded", "--out", &data]);
    let (table, first) = baselines(folder.path(), &data, &["--draws", "2"]);
    assert_eq!(baselines(folder.path(), &data, &["--draws", "2"]), (table.clone(), first.clone()));
    assert!(table.contains("9 negatives") && table.contains("49 negatives"), "{table}");
    assert_eq!(first["users_asked"], 200);

    let metrics = |report: &Value, negatives: &str| -> Vec<String> {
        let rows = report["negatives"][negatives]["metrics"].as_array().unwrap().clone();
        rows.iter().map(|row| row["metric"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!metrics(&first, "9").contains(&"HR@10".to_owned()), "HR@10 of 10 is always 1");
    assert!(metrics(&first, "49").contains(&"HR@10".to_owned()));
    let mean = |report: &Value, negatives: &str, ranker: &str| {
        report["negatives"][negatives]["metrics"][0]["estimates"][ranker]["mean"].as_f64().unwrap()
    };
    assert!((mean(&first, "9", "random") - 0.1).abs() < 0.05, "{table}");
    assert!(mean(&first, "49", "random") < mean(&first, "9", "random"));
    assert_eq!(
        first["negatives"]["9"]["slices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|slice| slice["users"].as_u64().unwrap())
            .sum::<u64>()
            % 200,
        0
    );

    let (_, other) = baselines(folder.path(), &data, &["--draws", "3"]);
    assert_ne!(first["draws"], other["draws"]);
    assert_ne!(mean(&first, "9", "random").to_bits(), mean(&other, "9", "random").to_bits());
}

#[test]
fn trained_models_are_evaluated_over_the_same_lists() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (data, out) = (path("world"), path("trained"));
    curator(&["embedded", "--out", &data]);
    let options = ["--draws", "1", "--catalogue"];
    let (untrained, plain) = baselines(folder.path(), &data, &options);
    let train = ["--train", &out, "--models", "bpr-mf,ease", "--epochs", "10", "--threads", "1"];
    let (table, report) = baselines(folder.path(), &data, &[&options[..], &train].concat());
    assert!(table.contains("EASE less item-kNN") && !untrained.contains("EASE"), "{table}");
    for part in [&report["negatives"]["49"], &report["catalogue"]] {
        let row = &part["metrics"][0];
        assert!(row["estimates"]["BPR-MF"]["mean"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["less_item_knn"]["EASE"]["p_value"].as_f64().is_some(), "{row}");
    }
    assert_eq!(
        report["negatives"]["9"]["metrics"][0]["estimates"]["item-kNN"],
        plain["negatives"]["9"]["metrics"][0]["estimates"]["item-kNN"]
    );
    let again = baselines(folder.path(), &data, &[&options[..], &["--trained", &out]].concat());
    assert_eq!(again, (table, report));

    let other = path("other");
    curator(&["embedded", "--seed", "1", "--out", &other]);
    for flag in ["--train", "--trained"] {
        let output = Command::new(env!("CARGO_BIN_EXE_podium-curator"))
            .args(["baselines", "--data", &other, flag, &out])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("interactions"), "{said}");
    }
}

#[test]
fn lengths_and_shortening_of_prompts_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let run_file = folder.path().join("run.toml");
    std::fs::write(&run_file, "[prompt]\ntemplate = \"words\"\n").unwrap();
    let run_file = run_file.display().to_string();
    let report = |budget: &str| {
        curator(&[
            "prompts",
            &run_file,
            "--users",
            "20",
            "--show",
            "1",
            "--set",
            &format!("prompt.max_chars={budget}"),
        ])
    };
    let whole = report("100000");
    assert!(whole.contains("training prompts: 20, in characters"), "{whole}");
    assert!(whole.contains("captions shortened        0"), "{whole}");
    assert!(whole.contains("One of these candidates comes next"), "{whole}");
    let short = report("700");
    assert!(!short.contains("captions shortened        0\n  captions omitted          0\n"), "{short}");
    let impossible = report("100");
    assert!(impossible.contains("over the budget           20"), "{impossible}");
    assert!(impossible.contains("expected at most 100 (prompt.max_chars)"), "{impossible}");
}

#[test]
fn numbers_out_of_range_are_rejected() {
    let most = u64::MAX.to_string();
    for flag in ["--negatives", "--draws"] {
        let output = Command::new(env!("CARGO_BIN_EXE_podium-curator"))
            .args(["baselines", "--data", "nowhere", flag, &most])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag}: {output:?}");
    }
}
