//! No choice of a run depends on a test target: with other test targets every byte of the trained policies is the same,
//! and so are all evaluations while training, the best version, and the end of the run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use podium_recsys::dataset::HeldOut;
use podium_recsys::synthetic::{self, World};
use podium_recsys::{Catalogue, Dataset, User};
use podium_tests::{Process, embedded_start, path_text};
use serde_json::Value;

/// Number of training interactions of a user, the target included.
const TRAINED: usize = 9;

/// Another item as the target of each user.
fn with_other_targets(users: &mut [User], catalogue: &Catalogue) {
    for user in users {
        let another = catalogue.items().iter().find(|item| !user.items.contains(&item.id));
        let target = user.items.last_mut().expect("a user has a target");
        *target = another.expect("a catalogue larger than a history").id;
    }
}

/// Writes a leave-one-out data set, with or without a validation part, in which the targets of `changed` are others.
fn write_data(folder: &Path, with_validation: bool, changed: Option<HeldOut>) -> Result<PathBuf> {
    let world = World { history: TRAINED + 1, train_users: 60, ..World::default() };
    let generated = synthetic::generate(&world)?;
    let users_until = |length: usize| -> Vec<User> {
        let row = |user: &User| User { id: user.id, items: user.items[..length].to_vec() };
        generated.train.iter().map(row).collect()
    };
    let mut data = Dataset {
        train: users_until(if with_validation { TRAINED } else { TRAINED + 1 }),
        validation: if with_validation { users_until(TRAINED + 1) } else { Vec::new() },
        test: users_until(TRAINED + 2),
        reasoning: BTreeMap::new(),
        name: "shop".to_owned(),
        ..generated.clone()
    };
    match changed {
        Some(HeldOut::Test) => with_other_targets(&mut data.test, &data.catalogue),
        Some(HeldOut::Validation) => {
            with_other_targets(&mut data.validation, &data.catalogue);
            for (validation, test) in data.validation.iter().zip(&mut data.test) {
                test.items[TRAINED] = validation.items[TRAINED];
            }
        }
        None => {}
    }
    let dir = folder.join(format!("{with_validation}-{changed:?}")).join("shop");
    data.write(&dir)?;
    Ok(dir)
}

/// Everything that a run leaves and that may depend on held-out targets.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The fine-tuned policy and all versions, by path.
    policies: BTreeMap<PathBuf, Vec<u8>>,
    evaluations: String,
    best: Value,
    ended_early: Value,
}

/// Fine-tunes and trains on the data set in `dir` with further settings, and returns the run folder and the output.
fn run(dir: &Path, more: &[&str]) -> Result<(PathBuf, String)> {
    let start = embedded_start(None)?;
    let folder = dir.parent().context("the data has a parent")?;
    let out = folder.join("run");
    let data = format!("data.dir={}", path_text(dir));
    let model = format!("model.path={}", path_text(start.path()));
    let mut arguments = vec!["demo", "--steps", "6", "--workers", "2", "--out", path_text(&out)];
    let settings = [
        data.as_str(),
        &model,
        "data.split=times",
        "run.stages=[\"sft\",\"grpo\"]",
        "run.portable=false",
        "sft.steps=3",
        "demonstration.reasoning_share=0.0",
        "demonstration.ranking=target_first",
        "answer.require_thinking=false",
        "rollout.prompts_per_step=12",
        "rollout.prompts_per_lease=6",
        "evaluation.every_steps=1",
    ];
    for setting in settings.iter().chain(more) {
        arguments.extend(["--set", setting]);
    }
    let mut demo = Process::spawn("demo", "podium", &arguments, folder)?;
    demo.wait_for_success()?;
    Ok((out, demo.output()))
}

/// Trains on the data set in `dir`; evaluations may end the run early.
fn train(dir: &Path) -> Result<Outcome> {
    let (out, said) = run(dir, &["watch.stop_after_evaluations=2"])?;
    ensure!(said.contains("     validation, version ") && said.contains("60 validation users"), "{said}");
    let mut policies = BTreeMap::new();
    for below in ["stages/sft", "policy"] {
        read_below(&out, &out.join(below), &mut policies)?;
    }
    // The inputs of fine-tuning: the checksums of all files, those of the test part included.
    policies.remove(Path::new("stages/sft/made-from"));
    let finished: Value = serde_json::from_slice(&fs::read(out.join("finished.json"))?)?;
    ensure!(finished["part"] == "validation", "{finished}");
    Ok(Outcome {
        policies,
        evaluations: fs::read_to_string(out.join("evaluations.jsonl"))?,
        best: finished["best"].clone(),
        ended_early: finished["ended_early"].clone(),
    })
}

/// Reads all files below a folder, by their paths relative to `root`.
fn read_below(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            read_below(root, &path, files)?;
        } else {
            files.insert(path.strip_prefix(root)?.to_owned(), fs::read(&path)?);
        }
    }
    Ok(())
}

#[test]
fn no_choice_of_a_run_depends_on_a_test_target() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let outcome = |with_validation, changed| train(&write_data(folder.path(), with_validation, changed)?);
    let mut evaluations = Vec::new();
    for with_validation in [true, false] {
        let one = outcome(with_validation, None)?;
        let other = outcome(with_validation, Some(HeldOut::Test))?;
        let weights = |outcome: &Outcome| {
            let is_weights = |path: &&PathBuf| path.ends_with("model.safetensors");
            outcome.policies.keys().filter(is_weights).count()
        };
        ensure!(weights(&one) >= 4, "the fine-tuned policy and several versions: {:?}", one.policies.keys());
        ensure!(one.policies.keys().eq(other.policies.keys()), "other files of policies");
        for (path, bytes) in &one.policies {
            ensure!(other.policies[path] == *bytes, "{} depends on the test targets", path.display());
        }
        ensure!(one == other, "evaluations or choices depend on the test targets: {one:?}\n{other:?}");
        evaluations.push(one.evaluations);
    }
    // The comparison can fail: validation targets are what the evaluations are about.
    let other = outcome(true, Some(HeldOut::Validation))?;
    ensure!(evaluations[0] != other.evaluations, "the evaluations do not depend on the validation targets");
    Ok(())
}

#[test]
fn a_run_without_a_validation_part_evaluates_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (out, said) = run(&write_data(folder.path(), false, None)?, &["data.validation=none"])?;
    let evaluations = fs::read_to_string(out.join("evaluations.jsonl")).unwrap_or_default();
    ensure!(evaluations.is_empty() && !said.contains("validation users"), "{said}");
    let finished: Value = serde_json::from_slice(&fs::read(out.join("finished.json"))?)?;
    ensure!(finished["steps"] == 6 && finished["best"].is_null(), "{finished}");
    ensure!(said.contains("policy  ") && out.join("policy/6/model.safetensors").is_file(), "{said}");
    ensure!(out.join("report.html").is_file(), "no report");
    Ok(())
}
