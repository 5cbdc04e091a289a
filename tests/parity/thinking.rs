//! Chat templates that leave the think block to the completion, open it, or close it: fine-tuning, GRPO steps,
//! evaluation and likelihood with the ids that Transformers renders, and with well-formed answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use podium_config::RunFile;
use podium_recsys::completion::{self, Layout, ThinkingStart};
use podium_recsys::demonstration::demonstrate;
use podium_recsys::prompt::Prompt;
use podium_recsys::{Task, synthetic};
use podium_tests::{Process, Run, path_text, rows};
use podium_tokenizer::{Chat, Variables};
use serde_json::{Value, json};

use crate::podium;
use crate::reference::{self, Sequence, Subject, repository, shared};

/// Number of demonstrations whose loss is compared.
const DEMONSTRATIONS: usize = 4;
/// Maximum relative error of a loss.
const LIMIT: f64 = 1e-4;

/// State of the think block at the end of a template's prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Template {
    Plain,
    Opened,
    Closed,
}

impl Template {
    const ALL: [Self; 3] = [Self::Plain, Self::Opened, Self::Closed];

    /// The text that it appends to a prompt.
    const fn added(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Opened => "<think>\n",
            Self::Closed => "<think>\n\n</think>\n\n",
        }
    }
}

/// Size of a test with a model.
struct Size<'a> {
    /// Settings of fine-tuning, which starts from a policy without knowledge of the task.
    fine_tuning: &'a [&'a str],
    /// Settings of GRPO.
    grpo: &'a [&'a str],
}

/// The settings of all stages: short prompts and answers.
const TASK: [&str; 12] = [
    "world.train_users=400",
    "world.validation_users=20",
    "world.history=4",
    "data.min_interactions=5",
    "candidates.count=5",
    "run.record_groups=true",
    "rollout.prompts_per_lease=4",
    "rollout.prompts_per_step=4",
    "rollout.temperature=0.5",
    "rollout.group_size=4",
    "rollout.max_new_tokens=64",
    "evaluation.users=8",
];

/// A model's folder with one of the templates.
fn with_template(model: &Path, template: Template) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for entry in fs::read_dir(model)? {
        let entry = entry?;
        fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    let own = folder.path().join("chat_template.jinja");
    let text = if own.exists() {
        fs::read_to_string(&own)?
    } else {
        let config: Value = serde_json::from_slice(&fs::read(folder.path().join("tokenizer_config.json"))?)?;
        config["chat_template"].as_str().context("no chat template")?.to_owned()
    };
    let added = template.added().replace('\n', "\\n");
    let end = format!("{{% if add_generation_prompt %}}{{{{ '{added}' }}}}{{% endif %}}");
    fs::write(&own, text.trim_end().to_owned() + &end)?;
    Ok(folder)
}

/// The task of a run with a policy's chat template.
fn task(file: &RunFile, chat: &Arc<Chat>) -> Result<Task> {
    let ends = chat.clone();
    let task = Task::new(synthetic::generate(&file.world)?, &file.task(), file.run.seed, Path::new(""))?;
    Ok(task.ended_with(Arc::new(move |prompt| Ok(ends.generation_prompt(prompt.messages())?))))
}

/// Returns Transformers' results for prompts, completions and sampled ids.
fn rendered(tokenizer: &Path, input: &[Value]) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let (source, target) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    reference::write_rows(&source, input)?;
    let files = ["--input", path_text(&source), "--output", path_text(&target)];
    let arguments = [&["--tokenizer", path_text(tokenizer)][..], &files].concat();
    reference::run(&repository().join("tests/parity/rendering.py"), &arguments)?;
    rows(&target)
}

fn messages(prompt: &Prompt) -> Value {
    prompt.messages().map(|(role, content)| json!({ "role": role, "content": content })).collect()
}

fn ids(value: &Value) -> Result<Vec<u32>> {
    Ok(serde_json::from_value(value.clone())?)
}

/// Fine-tunes; returns the rows of the metrics.
fn fine_tune(run_file: &str, model: &Path, out: &Path, settings: &[&str]) -> Result<Vec<Value>> {
    let mut arguments = vec!["sft", "--run-file", run_file, "--device", "cpu"];
    arguments.extend(["--model", path_text(model), "--out", path_text(out)]);
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    podium::run("podium-learner", &arguments)?;
    rows(&out.join("metrics.jsonl"))
}

/// Fine-tunes a model with a template for one step, and compares its loss with Transformers'.
fn compare_fine_tuning(model: &Path, template: Template, size: &Size<'_>) -> Result<()> {
    let folder = with_template(model, template)?;
    let thinking = format!("answer.require_thinking={}", template != Template::Closed);
    let policy = format!("model.path={}", path_text(folder.path()));
    let settings = [&TASK[..], size.grpo, &[thinking.as_str(), &policy]].concat();
    let prepared = Run::embedded(&settings)?;
    let file = RunFile::load(Path::new(prepared.run_file()), &[])?;
    let chat = Arc::new(Chat::load(folder.path(), Variables::prompt(None, &file.model.template_variables))?);

    // The loss of fine-tuning is the mean log-probability by Transformers on the ids that Transformers renders.
    let task = task(&file, &chat)?;
    let mut shown = Vec::new();
    for index in task.training_order(0).into_iter().take(DEMONSTRATIONS) {
        shown.push(demonstrate(&task, &file.demonstration, index, 0)?.context("nothing to imitate")?);
    }
    let input: Vec<Value> = shown
        .iter()
        .map(|one| {
            json!({ "messages": messages(&one.prompt), "variables": {}, "completion": one.completion, "ids": [] })
        })
        .collect();
    let expected = rendered(folder.path(), &input)?;
    let mut sequences = Vec::new();
    for (one, expected) in shown.iter().zip(&expected) {
        let text = expected["prompt"].as_str().context("no prompt")?;
        ensure!(text.ends_with(template.added()), "{template:?}: {text:?}");
        ensure!(
            chat.encode(one.prompt.messages())? == ids(&expected["prompt_ids"])?,
            "{template:?}: {text:?}"
        );
        let (prompt_ids, completion_ids) = (ids(&expected["prompt_ids"])?, ids(&expected["completion_ids"])?);
        sequences.push(Sequence { prompt_ids, completion_ids });
    }
    let subject = Subject { model: folder.path(), adapter: None };
    let scores = reference::score(subject, &sequences, 1.0, 0)?.logprobs.concat();
    let expected_loss = -scores.iter().sum::<f64>() / scores.len() as f64;
    let batch = format!("sft.batch_size={DEMONSTRATIONS}");
    let once = ["sft.steps=1", &batch, "sft.full_ranking_steps=0", "sft.micro_batch_size=2"];
    let first = fine_tune(prepared.run_file(), folder.path(), &prepared.folder().join("once"), &once)?;
    let loss = first[0]["loss"].as_f64().context("no loss")?;
    ensure!(
        (loss - expected_loss).abs() < LIMIT * expected_loss,
        "{template:?}: fine-tuning's loss is {loss}, Transformers' {expected_loss}"
    );
    ensure!(first[0]["num_tokens"] == scores.len(), "{template:?}: {} tokens, {}", scores.len(), first[0]);
    Ok(())
}

/// Fractions of completions, over all steps and evaluations of a run.
#[derive(Debug, Default, Clone, Copy)]
struct Shares {
    /// Well-formed completions.
    well_formed: f64,
    /// Completions that list forbidden items, which a constraint excludes.
    mislisted: f64,
    /// Completions that are parsed as if the prompt ended differently.
    misread: f64,
}

impl Shares {
    fn add(&mut self, row: &Value, template: Template, weight: f64) -> Result<()> {
        let share = |name: &str| {
            let name = format!("completions/{name}");
            row[&name].as_f64().with_context(|| format!("no {name} in {row}"))
        };
        let sum =
            |names: &[&str]| -> Result<f64> { names.iter().map(|name| share(&format!("form/{name}"))).sum() };
        self.well_formed += weight * share("well_formed")?;
        self.mislisted += weight * sum(&["invented_item", "not_a_candidate", "repeated_item", "long_list"])?;
        let misread: &[&str] = match template {
            Template::Plain => &[],
            Template::Opened => &["no_thinking", "unopened_thinking", "text_before_thinking"],
            Template::Closed => &["no_thinking", "unopened_thinking", "unclosed_thinking", "empty_thinking"],
        };
        self.misread += weight * sum(misread)?;
        Ok(())
    }
}

/// Runs GRPO steps and compares their records with Transformers.
fn grpo(template: Template, policy: &Path, settings: &[&str]) -> Result<Shares> {
    let run = Run::embedded(settings)?;
    let mut processes = vec![run.coordinator("coordinator")?, run.learner("learner", 0, 1)?];
    processes.push(run.worker("worker")?);
    processes.iter_mut().rev().try_for_each(Process::wait_for_success)?;
    compare_records(template, policy, &run)?;
    let steps = rows(&run.out().join("metrics.jsonl"))?;
    for step in &steps {
        let gap = step["sampling/sampling_logp_difference/max"].as_f64();
        ensure!(
            gap.is_some_and(|gap| gap < 1e-3),
            "{template:?}: recomputed log-probabilities differ: {step}"
        );
    }
    let evaluations = rows(&run.out().join("evaluations.jsonl"))?;
    for evaluation in &evaluations {
        // Every permutation of five candidates has at least a fifth.
        let mrr = evaluation["likelihood/MRR"]["mean"].as_f64();
        ensure!(mrr.is_some_and(|mrr| mrr > 0.199), "{template:?}: no full ranking: {evaluation}");
    }
    let mut shares = Shares::default();
    let weight = 1.0 / (steps.len() + evaluations.len()) as f64;
    for row in steps.iter().chain(&evaluations) {
        shares.add(row, template, weight)?;
    }
    Ok(shares)
}

/// Compares the prompts and the texts of the first step with those of Transformers.
fn compare_records(template: Template, policy: &Path, run: &Run) -> Result<()> {
    let groups = rows(&run.out().join("groups.jsonl"))?;
    let samples = rows(&run.out().join("samples.jsonl"))?;
    let of_first_step = |sample: &&Value| sample["purpose"] == "training" && sample["step"] == 0;
    let (mut input, mut found) = (Vec::new(), Vec::new());
    for sample in samples.iter().filter(of_first_step) {
        let group = groups.iter().find(|group| group["step"] == 0 && group["index"] == sample["index"]);
        let group = group.with_context(|| format!("no group of {sample}"))?;
        let messages = json!([{ "role": "user", "content": sample["prompt"] }]);
        for completion in group["completions"].as_array().context("no completions")? {
            input.push(json!({
                "messages": messages, "variables": {}, "completion": "", "ids": completion["ids"],
            }));
            found.push((&group["prompt_ids"], &completion["text"]));
        }
    }
    ensure!(found.len() >= 16, "{} completions", found.len());
    for (expected, (prompt_ids, text)) in rendered(policy, &input)?.iter().zip(found) {
        ensure!(expected["prompt_ids"] == *prompt_ids, "{template:?}: {}", expected["prompt"]);
        ensure!(expected["text"] == *text, "{template:?}: {text}, expected {}", expected["text"]);
    }
    Ok(())
}

/// Tests a model with every template.
fn try_model(name: &str, model: &Path, size: &Size<'_>) -> Result<()> {
    for template in Template::ALL {
        compare_fine_tuning(model, template, size)?;
    }
    eprintln!("\n{name}: shares of completions of constrained and of free steps and evaluations");
    for template in Template::ALL {
        let start = with_template(model, template)?;
        let thinking = format!("answer.require_thinking={}", template != Template::Closed);
        let policy = format!("model.path={}", path_text(start.path()));
        let prepared = Run::embedded(&[&TASK[..], size.grpo, &[thinking.as_str(), &policy]].concat())?;
        let tuned = prepared.folder().join("tuned");
        fine_tune(prepared.run_file(), start.path(), &tuned, size.fine_tuning)?;
        let policy = format!("model.path={}", path_text(&tuned));
        let more = [thinking.as_str(), &policy, "evaluation.likelihood=true"];
        let settings = [&TASK[..], size.grpo, &more].concat();
        let constrained = [&settings[..], &["rollout.constrain_answers=true"]].concat();
        let constrained = grpo(template, &tuned, &constrained)?;
        let free = grpo(template, &tuned, &settings)?;
        eprintln!("  {template:?}: {constrained:?}, {free:?}");
        // Reasoning is unconstrained, and may leave no tokens for the answer: the constraint applies to the list
        // after it.
        ensure!(constrained.mislisted < 1e-9, "{name}, {template:?}: {constrained:?}");
        ensure!(constrained.well_formed > 0.1, "{name}, {template:?}: no answer follows reasoning");
        let closed = template != Template::Closed || (constrained.well_formed - 1.0).abs() < 1e-9;
        ensure!(closed, "{name}: an answer after a closed block is malformed");
        let misread = constrained.misread + free.misread;
        ensure!(misread < 1e-9, "{name}, {template:?}: a fraction of {misread} is misparsed");
    }
    Ok(())
}

#[test]
fn qwen3_templates_open_and_close_the_think_block() -> Result<()> {
    let (folder, tokenizer) = (tempfile::tempdir()?, shared("qwen3-tokenizer")?);
    let model = folder.path().join("model");
    let size = "--hidden 32 --ffn 64 --layers 2 --heads 2 --kv-heads 1 --head-dim 16";
    let mut arguments = vec!["--tokenizer", path_text(&tokenizer), "--out", path_text(&model)];
    arguments.extend(size.split(' '));
    reference::run(&shared("oracle/make_checkpoint.py")?, &arguments)?;
    let fine_tuning = [
        "sft.steps=60",
        "sft.batch_size=8",
        "sft.micro_batch_size=8",
        "sft.full_ranking_steps=0",
        "sft.learning_rate=1e-2",
        "sft.warmup_steps=10",
    ];
    let grpo = ["run.steps=1", "learner.learning_rate=1e-4"];
    try_model("Qwen3's tokenizer", &model, &Size { fine_tuning: &fine_tuning, grpo: &grpo })
}

/// Requires SmolLM2-135M-Instruct in the folder `PODIUM_SMOLLM2`: `make thinking` downloads it and runs this.
#[test]
fn smollm2_thinks_by_any_template() -> Result<()> {
    let model = std::env::var_os("PODIUM_SMOLLM2").map(PathBuf::from);
    let model = model.context("PODIUM_SMOLLM2 is not set: run `make thinking`")?;
    let fine_tuning = [
        "sft.steps=12",
        "sft.batch_size=8",
        "sft.micro_batch_size=4",
        "sft.full_ranking_steps=0",
        "sft.learning_rate=1e-4",
        "sft.warmup_steps=2",
    ];
    let grpo = ["run.steps=1", "learner.learning_rate=1e-6"];
    try_model("SmolLM2-135M-Instruct", &model, &Size { fine_tuning: &fine_tuning, grpo: &grpo })
}

#[test]
fn prompt_and_completion_match_transformers_rendering_of_the_conversation() -> Result<()> {
    let qwen3 = shared("qwen3-tokenizer")?;
    let reasoning = "crimson\ndesert";
    let answer = "[ITEM_4] A title\n[ITEM_2] Another";
    let whole = format!("<think>\n{reasoning}\n</think>\n\n{answer}");
    let question = Prompt { system: Some("Rank.".to_owned()), user: "Is <think> a word?".to_owned() };
    let mut conversation = messages(&question);
    let assistant = |content: &str| json!({ "role": "assistant", "content": content });
    let list = conversation.as_array_mut().context("a list")?;
    list.push(assistant(&whole));
    let reasoned = conversation.clone();
    let plain: Value = json!([conversation[0], conversation[1], assistant(answer)]);
    for (template, conversation, completion) in [
        (Template::Plain, &reasoned, whole.as_str()),
        (Template::Opened, &reasoned, &whole),
        (Template::Closed, &plain, answer),
    ] {
        let folder = with_template(&qwen3, template)?;
        let chat = Chat::load(folder.path(), Variables::prompt(None, &BTreeMap::new()))?;
        let start = ThinkingStart::of(&chat.generation_prompt(question.messages())?);
        let written = completion::after(start, completion, Layout::Titled)?;
        // Qwen3's own template renders the assistant's answer with its think block.
        let variables = json!({ "add_generation_prompt": false });
        let row = json!({ "messages": conversation, "variables": variables, "completion": "", "ids": [] });
        let expected = rendered(&qwen3, &[row])?.remove(0);
        let mut ids = chat.encode(question.messages())?;
        let tokenizer = chat.tokenizer();
        let prompt = tokenizer.decode(&ids, false)?;
        let text = expected["prompt"].as_str().context("no text")?;
        ensure!(format!("{prompt}{written}<|im_end|>\n") == text, "{template:?}: {prompt}{written}\n{text}");
        ids.extend(tokenizer.encode(&written)?);
        ids.push(tokenizer.end_of_turn_id().context("no end of turn")?);
        ids.extend(tokenizer.encode("\n")?);
        ensure!(expected["prompt_ids"] == json!(ids), "{template:?}: {ids:?}");
    }
    Ok(())
}
