//! A reward for the format alone triggers the inflation watch.

use anyhow::{Context, Result, ensure};
use podium_tests::{Process, path_text, rows};

#[test]
fn a_reward_for_the_format_alone_triggers_the_watch() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("form");
    let arguments = [
        "demo",
        "--steps",
        "40",
        "--set",
        "evaluation.every_steps=10",
        "--set",
        "reward.terms=[{name=\"form\"}]",
        // Constrained answers are well-formed from the start.
        "--set",
        "rollout.constrain_answers=false",
        // Without this the run is refused before its start.
        "--set",
        "reward.check=warn",
        "--out",
        path_text(&out),
    ];
    let mut demo = Process::spawn("demo", "podium", &arguments, folder.path())?;
    demo.wait_for_success()?;
    ensure!(
        demo.output().contains("warning: the reward looks inflated since version 30"),
        "{}",
        demo.output()
    );
    let evaluations = rows(&out.join("evaluations.jsonl"))?;
    let found = evaluations.iter().find(|row| row["policy_version"] == 30).context("no version 30")?;
    ensure!(found["watch/inflated"] == 1 && found["watch/from_version"] == 0, "{found}");
    let finished: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("finished.json"))?)?;
    let best = finished["best"]["policy_version"].as_u64().context("no best version")?;
    ensure!(best < 30, "the best version is {best}");
    ensure!(out.join(format!("policy/{best}/model.safetensors")).is_file(), "the best policy is missing");
    Ok(())
}
