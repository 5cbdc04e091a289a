//! Faults are reported once, with location and remedy, and the rest of the run continues.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use podium_config::RunFile;
use podium_tests::{Process, Run, path_text};
use serde_json::Value;

fn says(output: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(output.contains(part), "{part:?} is not in:\n{output}");
    }
    Ok(())
}

#[test]
fn a_wrong_key_is_refused_with_a_suggestion() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.toml");
    fs::write(&file, "[rollout]\ngruop_size = 4\n")?;
    let mut process = Process::spawn("train", "podium", &["train", path_text(&file)], folder.path())?;
    says(&process.wait_for_failure()?, &["run.toml", "rollout.gruop_size", "rollout.group_size"])
}

#[test]
fn an_invalid_line_is_named() -> Result<()> {
    let run = Run::embedded(&["run.steps=1"])?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("shop");
    fs::create_dir(&data)?;
    fs::write(data.join("train.tsv"), "1\t4 5 6\n2\t4 five 6\n")?;
    fs::write(data.join("test.tsv"), "3\t6 5 4\n")?;
    fs::write(data.join("shop_titles.csv"), "item_id,title\n4,a\n5,b\n6,c\n")?;
    let (change, out) = (format!("data.dir={}", path_text(&data)), folder.path().join("out"));
    let arguments = ["--run-file", run.run_file(), "--out", path_text(&out), "--set", &change];
    let mut process = Process::spawn("coordinator", "podium-coordinator", &arguments, folder.path())?;
    says(&process.wait_for_failure()?, &["train.tsv", "2", "five"])
}

#[test]
fn a_port_in_use_is_named_with_a_remedy() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let run = Run::embedded(&["run.steps=1"])?;
    let out = run.out();
    let arguments = ["--run-file", run.run_file(), "--out", path_text(&out), "--listen", &address];
    let mut process = Process::spawn("coordinator", "podium-coordinator", &arguments, run.folder())?;
    says(&process.wait_for_failure()?, &[&address, "in use", "listen"])
}

#[tokio::test]
async fn a_worker_of_another_run_is_refused_and_the_run_continues() -> Result<()> {
    let run = Run::embedded(&["run.steps=1", "rollout.prompts_per_step=8", "evaluation.users=16"])?;
    let other = Run::embedded(&["run.steps=1", "run.seed=77"])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let (address, cache) = (run.address()?, other.folder().join("cache"));
    let arguments = ["--run-file", other.run_file(), "--coordinator", &address, "--cache", path_text(&cache)];
    let stranger = |name: &str, secret: Option<PathBuf>| {
        let mut command = Process::prepare("podium-rollout-worker", &arguments);
        command.envs(secret.map(|secret| (podium_transfer::secret::VARIABLE, secret)));
        Process::start(name, command, other.folder())?.wait_for_failure()
    };
    // Its secret is that of the other run.
    let said = stranger("stranger", None)?;
    says(&said, &["another secret than that of the run", "copy run.secret", "PODIUM_SECRET_FILE"])?;
    let hash = RunFile::load(Path::new(run.run_file()), &[])?.hash();
    ensure!(!said.contains(&hash), "the hash of the run is revealed:\n{said}");
    let exposed = other.folder().join("exposed");
    fs::write(&exposed, "0".repeat(64))?;
    fs::set_permissions(&exposed, fs::Permissions::from_mode(0o644))?;
    says(&stranger("careless", Some(exposed))?, &["exposed has mode 0644: expected 0600", "chmod 600"])?;
    says(
        &stranger("confused", Some(run.secret_file()))?,
        &["belongs to a run with hash", "start the worker with the coordinator's run file"],
    )?;

    let (mut worker, mut learner) = (run.worker("worker")?, run.learner("learner", 0, 1)?);
    for process in [&mut worker, &mut learner, &mut coordinator] {
        process.wait_for_success()?;
    }
    Ok(())
}

/// Copies a policy without its end-of-turn token.
fn without_end(start: &Path, folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    for entry in fs::read_dir(start)? {
        let entry = entry?;
        let target = folder.join(entry.file_name());
        fs::copy(entry.path(), &target)?;
        if target.extension().is_some_and(|extension| extension == "json") {
            let mut content: Value = serde_json::from_slice(&fs::read(&target)?)?;
            for key in ["eos_token", "eos_token_id"] {
                content.as_object_mut().map(|keys| keys.remove(key));
            }
            fs::write(&target, content.to_string())?;
        }
    }
    Ok(())
}

#[test]
fn a_policy_without_an_end_token_is_refused_by_every_command() -> Result<()> {
    let run = Run::embedded(&["run.steps=1"])?;
    let start = RunFile::load(Path::new(run.run_file()), &[])?.model.path.context("the run has a start")?;
    let folder = tempfile::tempdir()?;
    let (model, out) = (folder.path().join("endless"), folder.path().join("out"));
    without_end(&start, &model)?;
    let (file, rows) = (folder.path().join("run.toml"), folder.path().join("rows.jsonl"));
    fs::write(&file, format!("[model]\npath = {:?}\n", path_text(&model)))?;
    fs::write(&rows, "{\"prompt_ids\": [1, 2]}\n")?;
    let (model, out, rows, change) =
        (path_text(&model), path_text(&out), path_text(&rows), format!("model.path={}", model.display()));
    let run_file = ["--run-file", run.run_file(), "--out", out];
    for (binary, arguments, named) in [
        ("podium", vec!["check-config", path_text(&file)], "endless"),
        // The coordinator reads its own copy of the policy.
        ("podium-coordinator", [&run_file[..], &["--set", &change]].concat(), "policy/0"),
        ("podium-learner", [&["sft"][..], &run_file, &["--model", model]].concat(), "endless"),
        (
            "podium-rollout-worker",
            vec!["generate", "--model", model, "--input", rows, "--output", out],
            "endless",
        ),
    ] {
        let mut process = Process::spawn(binary, binary, &arguments, folder.path())?;
        says(
            &process.wait_for_failure()?,
            &[named, "names no token that ends a completion", "eos_token_id"],
        )?;
    }
    Ok(())
}
