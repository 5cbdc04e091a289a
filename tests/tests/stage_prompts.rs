//! Fine-tuning and rollouts use the same prompts, token for token, and fine-tuning trains on completions alone.
//!
//! Two faults of the method's released code are excluded here: the chat template was missing in one of the stages
//! (4), and the loss of fine-tuning included the prompt (9). A step of fine-tuning reports its loss; the
//! log-probabilities of the same completions after the prompts that a rollout worker recorded must yield it. This
//! applies to chat templates that leave the think block to the completion, and to those that open or close it in the
//! prompt.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use podium_config::RunFile;
use podium_recsys::demonstration::demonstrate;
use podium_recsys::{Task, synthetic};
use podium_tests::{Process, Run, embedded_start, path_text, rows};
use podium_tokenizer::{Chat, Variables};
use serde_json::{Value, json};

/// Number of prompts per step, and of demonstrations per batch.
const PROMPTS: usize = 4;

#[test]
fn fault_04_and_09_one_template_and_a_loss_on_completions_alone() -> Result<()> {
    let completion = compare(None, &[])?;
    ensure!(completion.starts_with("<think>"), "{completion}");
    Ok(())
}

#[test]
fn completions_continue_an_opened_think_block() -> Result<()> {
    let completion = compare(Some("assistant\n<think>"), &[])?;
    ensure!(!completion.contains("<think>") && completion.contains("</think>"), "{completion}");
    Ok(())
}

#[test]
fn completions_after_a_closed_think_block_are_the_answer() -> Result<()> {
    let completion = compare(Some("assistant\n<think></think>"), &["answer.require_thinking=false"])?;
    ensure!(completion.trim_start().starts_with("[ITEM_") && !completion.contains("think"), "{completion}");
    Ok(())
}

/// Compares the loss of fine-tuning with the log-probabilities of its targets after recorded prompts. Returns one of
/// the target completions.
fn compare(generation_prompt: Option<&str>, settings: &[&str]) -> Result<String> {
    let folder = embedded_start(generation_prompt)?;
    let policy = format!("model.path={}", path_text(folder.path()));
    let small = [
        &policy,
        "run.steps=1",
        "run.record_groups=true",
        "rollout.prompts_per_step=4",
        "rollout.prompts_per_lease=4",
        "evaluation.users=4",
    ];
    let run = Run::embedded(&[&small[..], settings].concat())?;
    let mut processes = vec![run.coordinator("coordinator")?];
    processes.push(run.worker("worker")?);
    processes.push(run.learner("learner", 0, 1)?);
    processes.iter_mut().try_for_each(Process::wait_for_success)?;
    let groups = rows(&run.out().join("groups.jsonl"))?;
    ensure!(groups.len() == PROMPTS, "{} groups", groups.len());

    // Both iterate over the training users of the first epoch in the same order, with the same candidates.
    let file = RunFile::load(Path::new(run.run_file()), &[])?;
    let start = file.model.path.clone().context("the run has no initial policy")?;
    let chat = Arc::new(Chat::load(&start, Variables::prompt(None, &file.model.template_variables))?);
    let (tokenizer, ends) = (chat.tokenizer(), chat.clone());
    let end_of_turn = tokenizer.end_of_turn_id().context("no end of turn")?;
    let task = Task::new(synthetic::generate(&file.world)?, &file.task(), file.run.seed, Path::new(""))?
        .ended_with(Arc::new(move |prompt| Ok(ends.generation_prompt(prompt.messages())?)));
    let (mut sampled, mut imitated) = (Vec::new(), String::new());
    for (group, index) in groups.iter().zip(task.training_order(0)) {
        let shown = demonstrate(&task, &file.demonstration, index, 0)?.context("nothing to imitate")?;
        ensure!(
            group["prompt_ids"] == json!(chat.encode(shown.prompt.messages())?),
            "the prompt differs: {group}"
        );
        let mut completion = tokenizer.encode(&shown.completion)?;
        imitated = shown.completion;
        completion.push(end_of_turn);
        sampled.push(json!({ "prompt_ids": group["prompt_ids"], "completion_ids": completion }));
    }
    let lines: Vec<String> = sampled.iter().map(Value::to_string).collect();
    let (input, scored) = (run.folder().join("input.jsonl"), run.folder().join("scored.jsonl"));
    fs::write(&input, lines.join("\n") + "\n")?;
    let arguments = ["score", "--model", path_text(&start), "--device", "cpu"];
    let files = ["--input", path_text(&input), "--output", path_text(&scored)];
    Process::spawn("score", "podium-learner", &[&arguments[..], &files].concat(), run.folder())?
        .wait_for_success()?;
    let logprobs: Vec<f64> = rows(&scored)?
        .iter()
        .flat_map(|row| row["logprobs"].as_array().cloned().unwrap_or_default())
        .filter_map(|logprob| logprob.as_f64())
        .collect();
    ensure!(logprobs.len() > 3 * PROMPTS, "{} tokens were scored", logprobs.len());
    let expected = -logprobs.iter().sum::<f64>() / logprobs.len() as f64;

    let out = run.folder().join("sft");
    let arguments = ["sft", "--run-file", run.run_file(), "--device", "cpu", "--out", path_text(&out)];
    let batch = ["--set", "sft.steps=1", "--set", "sft.batch_size=4", "--set", "sft.full_ranking_steps=0"];
    Process::spawn("sft", "podium-learner", &[&arguments[..], &batch].concat(), run.folder())?
        .wait_for_success()?;
    let step = rows(&out.join("metrics.jsonl"))?.pop().context("no step")?;
    let loss = step["loss"].as_f64().context("no loss")?;
    ensure!((loss - expected).abs() < 1e-4 * expected, "fine-tuning's loss is {loss}, expected {expected}");
    ensure!(step["num_tokens"] == logprobs.len(), "{step}: expected {} completion tokens", logprobs.len());
    Ok(imitated)
}
