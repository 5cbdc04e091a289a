//! `podium train` runs the stages from a model to a ranking policy, and repeats none of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_config::RunFile;
use podium_recsys::demonstration::demonstrate;
use podium_recsys::mixed::{self, Kind, Row};
use podium_recsys::{Task, synthetic};
use podium_tests::{PATIENCE, Process, Run, path_text};

const STAGES: &str = r#"
[run]
name = "staged"
stages = ["sft", "merge", "grpo"]
steps = 1

[model]
path = "start"

[prompt]
template = "compact"

[answer]
layout = "ids"

[lora]
rank = 2

[sft]
rows = "rows.jsonl"
steps = 2
batch_size = 4
warmup_steps = 0

[rollout]
prompts_per_step = 4
max_new_tokens = 16

[evaluation]
users = 8

[launch]
workers = 1
rollout_device = "cpu"
learner_device = "cpu"
"#;

/// A folder with a run file and its inputs: the embedded initial policy, and training rows.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Result<Self> {
        let embedded = Run::embedded(&[])?;
        let folder = tempfile::tempdir()?;
        fs::rename(embedded.out().join("start"), folder.path().join("start"))?;
        let folder = Self(folder);
        fs::write(folder.path("run.toml"), STAGES)?;
        folder.write_rows(0..12)?;
        Ok(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write_rows(&self, users: std::ops::Range<usize>) -> Result<()> {
        let file = RunFile::load(&self.path("run.toml"), &[])?;
        let task = Task::new(synthetic::generate(&file.world)?, &file.task(), 0, Path::new(""))?;
        let mut rows = Vec::new();
        for index in users {
            let shown = demonstrate(&task, &file.demonstration, index, 0)?.context("nothing to imitate")?;
            let case = task.training_case(index, 0)?;
            let row = Row {
                user: case.user,
                epoch: 0,
                kind: Kind::Reasoned,
                history: case.history,
                candidates: case.candidates,
                target: case.target,
                prompt: shown.prompt,
                completion: shown.completion,
            };
            mixed::write(&mut rows, &row)?;
        }
        Ok(fs::write(self.path("rows.jsonl"), rows)?)
    }

    fn train(&self, name: &str, more: &[&str]) -> Result<Process> {
        let (run_file, out) = (self.path("run.toml"), self.path("run"));
        let arguments = ["train", path_text(&run_file), "--out", path_text(&out)];
        Process::spawn(name, "podium", &[&arguments, more].concat(), self.0.path())
    }
}

#[test]
fn stages_train_a_policy_and_run_once() -> Result<()> {
    let folder = Folder::new()?;
    folder.train("stages alone", &["--prepare-only"])?.wait_for_success()?;
    let made = |name: &str| folder.path("run/stages").join(name);
    ensure!(made("sft/adapter_model.safetensors").is_file(), "fine-tuning wrote no adapter");
    ensure!(made("merged/model.safetensors").is_file(), "merging wrote no model");
    let merged = fs::metadata(made("merged/model.safetensors"))?.modified()?;

    let mut all = folder.train("all", &[])?;
    all.wait_for_success()?;
    for line in ["sft: already done", "merge: already done"] {
        ensure!(all.output().contains(line), "{line:?} is not in:\n{}", all.output());
    }
    ensure!(fs::metadata(made("merged/model.safetensors"))?.modified()? == merged, "merged twice");
    // GRPO trains its own adapter on top of the merged model.
    let base = fs::read(folder.path("run/policy/0/model.safetensors"))?;
    ensure!(base == fs::read(made("merged/model.safetensors"))?, "GRPO started from another model");
    ensure!(folder.path("run/policy/1/adapter_model.safetensors").is_file(), "GRPO trained nothing");

    let mut again = folder.train("again", &[])?;
    again.wait_for_success()?;
    ensure!(again.output().contains("is finished"), "{}", again.output());
    Ok(())
}

#[test]
fn stages_can_be_added_and_are_bound_to_their_inputs() -> Result<()> {
    let folder = Folder::new()?;
    let fine_tuned =
        folder.train("sft alone", &["--set", "run.stages=[\"sft\"]"]).and_then(|mut train| {
            train.wait_for_success()?;
            Ok(train.output())
        })?;
    ensure!(fine_tuned.contains("policy") && fine_tuned.contains("stages/sft"), "{fine_tuned}");
    let mut more = folder.train("more", &["--prepare-only"])?;
    more.wait_for_success()?;
    ensure!(more.output().contains("sft: already done"), "{}", more.output());

    let refused = |names: [&str; 2]| -> Result<()> {
        let message = folder.train("refused", &["--prepare-only"])?.wait_for_failure()?;
        ensure!(names.iter().all(|name| message.contains(name)), "{names:?} are not in: {message}");
        Ok(())
    };
    let config = fs::read(folder.path("start/config.json"))?;
    fs::write(folder.path("start/config.json"), [&config[..], b"\n"].concat())?;
    refused(["stages/sft", "model config.json"])?;
    fs::write(folder.path("start/config.json"), config)?;
    folder.write_rows(1..13)?;
    refused(["stages/sft", "sft.rows"])?;
    // If one stage is repeated, later stages of its old result are refused.
    fs::remove_dir_all(folder.path("run/stages/sft"))?;
    refused(["stages/merged", "adapter adapter_model.safetensors"])?;
    fs::remove_dir_all(folder.path("run/stages/merged"))?;
    folder.train("anew", &["--prepare-only"])?.wait_for_success()?;
    fs::remove_file(folder.path("run/stages/sft/made-from"))?;
    refused(["stages/sft", "made-from"])
}

#[test]
fn a_run_retains_its_template() -> Result<()> {
    let folder = Folder::new()?;
    fs::write(folder.path("own.jinja"), "{{ history | length }} of {{ candidates | length }}")?;
    let own = ["--prepare-only", "--set", "prompt.template=own.jinja"];
    folder.train("first", &own)?.wait_for_success()?;
    let kept = fs::read(folder.path("run/prompt.jinja"))?;
    fs::write(folder.path("own.jinja"), "{{ candidates | length }}")?;
    let refused = folder.train("other template", &own)?.wait_for_failure()?;
    ensure!(refused.contains("own.jinja differs from the template"), "{refused}");
    let refused = folder.train("other run", &[&own[..], &["--seed", "5"]].concat())?.wait_for_failure()?;
    ensure!(refused.contains("run"), "{refused}");
    ensure!(fs::read(folder.path("run/prompt.jinja"))? == kept, "a refused start replaced the template");
    Ok(())
}

#[test]
fn an_adapter_path_is_relative_to_the_run_file() -> Result<()> {
    let folder = Folder::new()?;
    folder.train("first", &["--prepare-only", "--set", "run.stages=[\"sft\"]"])?.wait_for_success()?;
    fs::rename(folder.path("run/stages/sft"), folder.path("adapter"))?;
    fs::remove_dir_all(folder.path("run"))?;
    let from_adapter = ["--set", "run.stages=[\"grpo\"]", "--set", "lora.adapter=adapter"];
    folder.train("second", &from_adapter)?.wait_for_success()?;
    let version = |number: u64| folder.path(&format!("run/policy/{number}/adapter_model.safetensors"));
    ensure!(
        fs::read(version(0))? == fs::read(folder.path("adapter/adapter_model.safetensors"))?,
        "the initial adapter differs"
    );
    ensure!(version(1).is_file(), "nothing was trained");
    Ok(())
}

#[test]
fn an_interrupted_stage_does_not_count_as_done() -> Result<()> {
    let folder = Folder::new()?;
    let mut train = folder.train("long", &["--set", "sft.steps=1000000"])?;
    let start = Instant::now();
    while !folder.path("run/stages/sft.partial/metrics.jsonl").exists() {
        ensure!(start.elapsed() < PATIENCE, "fine-tuning does not start:\n{}", train.output());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    train.signal(Signal::SIGTERM)?;
    train.wait_for_code(podium_service::shutdown::STOPPED.into())?;
    ensure!(!folder.path("run/stages/sft").exists(), "a partial stage counts as done");
    Ok(())
}

#[test]
fn stages_out_of_order_are_refused() -> Result<()> {
    let folder = Folder::new()?;
    for (set, expected) in [
        ("run.stages=[\"grpo\",\"sft\"]", "in this order"),
        ("run.stages=[]", "at least one of sft, merge and grpo"),
        ("run.stages=[\"merge\",\"grpo\"]", "sft before merge"),
    ] {
        let refused = folder.train("refused", &["--set", set])?.wait_for_failure()?;
        ensure!(refused.contains("run.stages") && refused.contains(expected), "{refused}");
    }
    Ok(())
}
