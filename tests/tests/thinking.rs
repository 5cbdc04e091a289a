//! Chat templates that open or close the think block in the prompt: runs continue from that state, or are refused
//! before they start. A run without a single well-formed completion prints a warning.

use std::fs;

use anyhow::{Context, Result, ensure};
use podium_tests::{Process, Run, embedded_start, path_text, rows};
use serde_json::Value;

const STEPS: usize = 4;

/// Records of a small run with the embedded initial policy, or with another chat template.
struct Recorded {
    /// Fractions of well-formed completions, by step.
    well_formed: Vec<f64>,
    evaluations: Vec<Value>,
    samples: Vec<Value>,
    reward: f64,
}

fn train(generation_prompt: Option<&str>, settings: &[&str]) -> Result<Recorded> {
    let folder = embedded_start(generation_prompt)?;
    let policy = format!("model.path={}", path_text(folder.path()));
    let steps = format!("run.steps={STEPS}");
    let small = [policy.as_str(), &steps, "run.seed=2", "evaluation.users=100", "evaluation.likelihood=true"];
    let run = Run::embedded(&[&small[..], settings].concat())?;
    let mut processes = vec![run.coordinator("coordinator")?, run.learner("learner", 0, 1)?];
    processes.push(run.worker("worker")?);
    processes.iter_mut().rev().try_for_each(Process::wait_for_success)?;
    let steps = rows(&run.out().join("metrics.jsonl"))?;
    let metric = |name: &str| -> Result<Vec<f64>> {
        steps.iter().map(|row| row[name].as_f64().with_context(|| format!("{name} in {row}"))).collect()
    };
    ensure!(metric("grad_norm")?.iter().all(|&norm| norm > 0.0), "a gradient is zero");
    let gaps = metric("sampling/sampling_logp_difference/max")?;
    ensure!(gaps.iter().all(|&gap| gap < 1e-4), "log-probabilities differ: {gaps:?}");
    let reward = metric("reward")?.iter().sum::<f64>() / STEPS as f64;
    Ok(Recorded {
        well_formed: metric("completions/well_formed")?,
        evaluations: rows(&run.out().join("evaluations.jsonl"))?,
        samples: rows(&run.out().join("samples.jsonl"))?,
        reward,
    })
}

#[test]
fn a_template_that_opens_the_think_block_trains_as_well_as_one_that_does_not() -> Result<()> {
    let (plain, opened) = (train(None, &[])?, train(Some("assistant\n<think>"), &[])?);
    // The policy begins with `<think>` anyway: the same distribution is sampled with other random numbers.
    let mean = |run: &Recorded| run.well_formed.iter().sum::<f64>() / STEPS as f64;
    let (before, after) = (mean(&plain), mean(&opened));
    ensure!(before > 0.4 && (before - after).abs() < 0.1, "well-formed: {before} without, {after} with");
    ensure!((plain.reward - opened.reward).abs() < 0.06, "{} without, {} with", plain.reward, opened.reward);
    let (one, other) = (&plain.evaluations[0], &opened.evaluations[0]);
    let value =
        |row: &Value, name: &str| row[name]["mean"].as_f64().with_context(|| format!("{name} in {row}"));
    for name in ["HR@3", "likelihood/HR@3", "likelihood/NDCG@10"] {
        let (before, after) = (value(one, name)?, value(other, name)?);
        ensure!((before - after).abs() < 0.15, "{name}: {before} without, {after} with");
    }
    for sample in &opened.samples {
        ensure!(sample["thinking_start"] == "opened", "{sample}");
    }
    Ok(())
}

#[test]
fn constrained_answers_continue_the_think_block_of_the_prompt() -> Result<()> {
    let constrained = "rollout.constrain_answers=true";
    for (generation_prompt, settings) in [
        ("assistant\n<think>", &[constrained][..]),
        ("assistant\n<think>\n\n</think>\n\n", &[constrained, "answer.require_thinking=false"]),
    ] {
        let run = train(Some(generation_prompt), settings)?;
        ensure!(
            run.well_formed.iter().all(|share| *share >= 0.99),
            "{generation_prompt}: {:?}",
            run.well_formed
        );
        for evaluation in &run.evaluations {
            let share = evaluation["completions/well_formed"].as_f64();
            ensure!(share.is_some_and(|share| share >= 0.99), "{generation_prompt}: {evaluation}");
        }
    }
    Ok(())
}

#[test]
fn required_but_closed_thinking_is_refused_everywhere() -> Result<()> {
    let run = Run::embedded(&["model.enable_thinking=false"])?;
    let out = run.out();
    let coordinator = ["--run-file", run.run_file(), "--out", path_text(&out)];
    let fine_tuned = run.folder().join("sft");
    let sft = ["sft", "--run-file", run.run_file(), "--device", "cpu", "--out", path_text(&fine_tuned)];
    for (binary, arguments) in [
        ("podium", &["check-config", run.run_file()][..]),
        ("podium-coordinator", &coordinator),
        ("podium-learner", &sft),
    ] {
        let said = Process::spawn(binary, binary, arguments, run.folder())?.wait_for_failure()?;
        ensure!(
            said.contains("answer.require_thinking is true, and the chat template closes"),
            "{binary}: {said}"
        );
    }
    Ok(())
}

#[test]
fn a_start_without_well_formed_completions_is_reported_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let arguments = ["demo", "--out", path_text(&out), "--steps", "3", "--workers", "1"];
    let settings = ["rollout.max_new_tokens=3", "evaluation.users=8", "rollout.prompts_per_step=8"];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> = arguments.into_iter().chain(settings).collect();
    let mut launcher = Process::spawn("demo", "podium", &arguments, folder.path())?;
    launcher.wait_for_success()?;
    let said = launcher.output();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("well-formed:")).collect();
    ensure!(warnings.len() == 1, "{said}");
    // The evaluation of version 0 and step 1 are sampled side by side: whichever is complete first is reported.
    let first = ["warning: no answer in the evaluation of version 0", "warning: no completion of step 1"];
    ensure!(first.iter().any(|part| warnings[0].contains(part)), "{}", warnings[0]);
    for part in ["100 % are unclosed_thinking", "\"<think> "] {
        ensure!(warnings[0].contains(part), "{part} in {}", warnings[0]);
    }
    ensure!(
        fs::read_to_string(out.join("report.html"))?.contains("unclosed thinking"),
        "the report shows it"
    );
    Ok(())
}
