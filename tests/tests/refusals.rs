//! What cannot work is said once, with place and remedy, and the rest of the run goes on.

use std::fs;

use anyhow::{Result, ensure};
use podium_tests::{Process, Run, path_text};

fn says(output: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(output.contains(part), "{part:?} is not in:\n{output}");
    }
    Ok(())
}

#[test]
fn a_wrong_key_is_answered_with_the_right_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.toml");
    fs::write(&file, "[rollout]\ngruop_size = 4\n")?;
    let mut process = Process::spawn("train", "podium", &["train", path_text(&file)], folder.path())?;
    says(&process.wait_for_failure()?, &["run.toml", "rollout.gruop_size", "rollout.group_size"])
}

#[test]
fn an_unreadable_line_is_named() -> Result<()> {
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
async fn a_worker_of_another_run_is_refused_and_the_run_goes_on() -> Result<()> {
    let run = Run::embedded(&["run.steps=1", "rollout.prompts_per_step=8", "evaluation.users=16"])?;
    let other = Run::embedded(&["run.steps=1", "run.seed=77"])?;
    let mut coordinator = run.coordinator("coordinator")?;
    let (address, cache) = (run.address()?, other.folder().join("cache"));
    let arguments = ["--run-file", other.run_file(), "--coordinator", &address, "--cache", path_text(&cache)];
    let mut stranger = Process::spawn("stranger", "podium-rollout-worker", &arguments, other.folder())?;
    says(
        &stranger.wait_for_failure()?,
        &["belongs to a run with hash", "start it with the coordinator's run file"],
    )?;

    let (mut worker, mut learner) = (run.worker("worker")?, run.learner("learner", 0, 1)?);
    for process in [&mut worker, &mut learner, &mut coordinator] {
        process.wait_for_success()?;
    }
    Ok(())
}
