//! Podium's results: its commands, run like a user would.

use std::path::Path;

use anyhow::Result;
use podium_tests::{Process, path_text, rows};
use serde::Deserialize;

use crate::reference::{Sequence, Subject, repository, write_rows};

/// One completion for each prompt.
#[derive(Debug)]
pub(crate) struct Completions {
    pub(crate) ids: Vec<Vec<u32>>,
    pub(crate) logprobs: Vec<Vec<f64>>,
}

/// Runs a command to completion.
pub(crate) fn run(binary: &str, arguments: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    Process::spawn("command", binary, arguments, folder.path())?.wait_for_success()
}

/// Log-probabilities of the completions of each sequence.
pub(crate) fn score(
    subject: Subject,
    sequences: &[Sequence],
    temperature: f64,
    dtype: &str,
) -> Result<Vec<Vec<f64>>> {
    #[derive(Deserialize)]
    struct Row {
        logprobs: Vec<f64>,
    }
    let temperature = temperature.to_string();
    let options = ["--temperature", &temperature, "--dtype", dtype];
    let rows: Vec<Row> = through_files("podium-learner", "score", subject, sequences, &options)?;
    Ok(rows.into_iter().map(|row| row.logprobs).collect())
}

/// Samples one completion for each sequence's prompt.
pub(crate) fn generate(subject: Subject, sequences: &[Sequence], options: &[&str]) -> Result<Completions> {
    #[derive(Deserialize)]
    struct Row {
        completions: [Completion; 1],
    }
    #[derive(Deserialize)]
    struct Completion {
        ids: Vec<u32>,
        logprobs: Vec<f64>,
    }
    let prompts: Vec<_> =
        sequences.iter().map(|sequence| serde_json::json!({ "prompt_ids": sequence.prompt_ids })).collect();
    let options =
        [&["--group-size", "1", "--top-p", "1", "--top-k", "0", "--ignore-stop"][..], options].concat();
    let rows: Vec<Row> = through_files("podium-rollout-worker", "generate", subject, &prompts, &options)?;
    let (ids, logprobs) =
        rows.into_iter().flat_map(|row| row.completions.map(|one| (one.ids, one.logprobs))).unzip();
    Ok(Completions { ids, logprobs })
}

/// Returns the output rows of a command that reads and writes JSON Lines.
fn through_files<Row: for<'a> Deserialize<'a>>(
    binary: &str,
    command: &str,
    subject: Subject,
    input_rows: &[impl serde::Serialize],
    options: &[&str],
) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    write_rows(&input, input_rows)?;
    let files = ["--input", path_text(&input), "--output", path_text(&output), "--device", "cpu"];
    run(binary, &[&[command][..], &subject.flags()[..], &files, options].concat())?;
    rows(&output)?.into_iter().map(|row| Ok(serde_json::from_value(row)?)).collect()
}

/// Writes the model with the merged adapter, in files of at most `shard_bytes`.
pub(crate) fn merge(model: &Path, adapter: &Path, out: &Path, shard_bytes: u64) -> Result<()> {
    let subject = Subject { model, adapter: Some(adapter) };
    let shard_bytes = shard_bytes.to_string();
    let options = ["--out", path_text(out), "--max-shard-size", &shard_bytes];
    run("podium-learner", &[&["merge"][..], &subject.flags()[..], &options].concat())
}

/// Fine-tunes for three steps on the embedded data set, with changes to the run file.
pub(crate) fn fine_tune(model: &Path, out: &Path, changes: &[&str]) -> Result<()> {
    let run_file = repository().join("deploy/configs/embedded-sft.toml");
    let small = [
        "world.train_users=100",
        "sft.steps=3",
        "sft.batch_size=8",
        "sft.micro_batch_size=8",
        "sft.full_ranking_steps=0",
        "sft.warmup_steps=1",
    ];
    let mut arguments = vec!["sft", "--run-file", path_text(&run_file), "--device", "cpu"];
    arguments.extend(["--model", path_text(model), "--out", path_text(out)]);
    arguments.extend(small.iter().chain(changes).flat_map(|change| ["--set", change]));
    run("podium-learner", &arguments)
}
