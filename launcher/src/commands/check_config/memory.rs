//! The memory that the processes of a run take on their devices, computed from the run file and the model's shape.

use std::fmt::Write;

use podium_config::{Attention, Colocate, MergeAdapter, RunFile};
use podium_memory::{
    CONTEXT, HEAD_LOGITS, HEAD_ROWS, Learner, Lease, MicroBatch, Model, Number, Phase, Selection, Worker,
    gibibytes, peak, peak_in_turns,
};

use super::shape::{Error, Shape, number};
use crate::card::Card;

/// Returns a table of memory by process and phase, and whether the processes fit `card`.
pub(super) fn describe(run: &RunFile, prompt_tokens: Option<u64>, card: Card) -> Result<String, Error> {
    let Shape { config, adapter, prompt_tokens } = Shape::of(run, prompt_tokens, None)?;
    let materialized = run.model.attention == Attention::Materialized;
    let model = |device: &str| {
        let model = Model::new(&config, number(run, device), adapter.as_ref());
        model.map(|model| if materialized { model.materialized() } else { model })
    };
    let learner = learner(run, model(&run.launch.learner_device)?, prompt_tokens).phases();
    let training = worker(run, model(&run.launch.rollout_device)?, prompt_tokens, false).phases();
    let evaluation = worker(run, model(&run.launch.rollout_device)?, prompt_tokens, true).phases();

    let mut text = format!(
        "memory by process in GiB, computed for prompts of {prompt_tokens} tokens, at the peak of each phase:\n"
    );
    text += "  process             phase    weights  gradients  optimizer  activations  cache  logits  total";
    let tables = [
        ("learner rank", &learner[..]),
        ("worker, training", &training),
        ("worker, evaluation", &evaluation),
    ];
    for (process, phases) in tables {
        for phase in phases {
            let _ = write!(text, "\n  {process:18}  {}", row(phase));
        }
    }
    if run.launch.colocate == Colocate::Process && run.run.steps > 0 {
        let base = model(&run.launch.learner_device)?;
        let leases = [training, evaluation].concat();
        let bytes = peak_in_turns(&learner, &leases, base.number.bytes() * base.parameters);
        let bytes = bytes + context(&run.launch.learner_device);
        return Ok(text + &totals(&[("learner rank and worker in one process", bytes)], card));
    }
    let learner = context(&run.launch.learner_device) + peak(&learner).total();
    let worker = peak(&training).total().max(peak(&evaluation).total());
    let worker = context(&run.launch.rollout_device) + worker;
    text += &totals(&[("learner rank", learner), ("worker", worker)], card);
    let is_pair = run.launch.learner_ranks == 1 && run.launch.workers.unwrap_or(1) == 1;
    if run.launch.colocate == Colocate::Share || run.launch.colocate == Colocate::Auto && is_pair {
        text += &totals(&[("learner rank and worker on one GPU", learner + worker)], card);
    }
    Ok(text)
}

fn row(phase: &Phase) -> String {
    let Phase { weights, gradients, optimizer, activations, cache, logits, .. } = *phase;
    let [weights, gradients, optimizer, activations, cache, logits, total] =
        [weights, gradients, optimizer, activations, cache, logits, phase.total()].map(gibibytes);
    let name = phase.name;
    format!(
        "{name:8} {weights:>7}  {gradients:>9}  {optimizer:>9}  {activations:>11}  {cache:>5}  {logits:>6}  {total:>5}"
    )
}

/// Returns one line for each process: its peak with libtorch and CUDA, and whether it fits.
fn totals(processes: &[(&str, u64)], card: Card) -> String {
    let mut text = String::new();
    for (process, bytes) in processes {
        let fits = if *bytes <= card.bytes { "fits" } else { "does not fit" };
        let total = gibibytes(*bytes);
        let _ = write!(text, "\n  {process}: {total} GiB with libtorch and CUDA, {fits} a GPU of {card}");
    }
    text
}

/// Memory of CUDA in a process on this device.
fn context(device: &str) -> u64 {
    if device == "cpu" { 0 } else { CONTEXT }
}

fn learner(run: &RunFile, model: Model, prompt_tokens: u64) -> Learner {
    let ranks = u64::from(run.launch.learner_ranks);
    let of_rank = u64::from(run.rollout.prompts_per_step).div_ceil(ranks);
    let groups = of_rank.min(u64::from(run.learner.groups_per_micro_batch));
    let micro_batch = MicroBatch {
        groups,
        group_size: u64::from(run.rollout.group_size),
        prompt_tokens,
        completion_tokens: u64::from(run.rollout.max_new_tokens),
    };
    let on_cpu = run.launch.learner_device == "cpu";
    Learner {
        head_rows: if on_cpu { (HEAD_LOGITS / model.vocabulary).max(1) } else { HEAD_ROWS },
        several: groups < of_rank,
        recompute_layers: run.learner.recompute_layers,
        reference: run.grpo.beta != 0.0,
        moving_reference: run.grpo.sync_ref_model,
        entropy_gradient: run.grpo.entropy_coef != 0.0,
        ranks,
        sharded: run.learner.zero_stage == 1,
        ..Learner::new(model, micro_batch)
    }
}

fn worker(run: &RunFile, model: Model, prompt_tokens: u64, evaluation: bool) -> Worker {
    let rollout = &run.rollout;
    let (prompts, group_size) = if evaluation {
        (run.evaluation.prompts_per_lease, 1)
    } else {
        (rollout.prompts_per_lease, rollout.group_size)
    };
    let selection = match (evaluation, rollout.top_p < 1.0) {
        (true, _) if run.evaluation.temperature == 0.0 => Selection::Greedy,
        (true, _) | (false, false) => Selection::Sampled,
        (false, true) => Selection::Sorted,
    };
    Worker {
        model,
        lease: Lease {
            prompts: u64::from(prompts),
            group_size: u64::from(group_size),
            prompt_tokens,
            completion_tokens: u64::from(rollout.max_new_tokens),
        },
        prefill_tokens: u64::from(rollout.prefill_tokens),
        selection,
        constrains: rollout.constrain_answers,
        merges: match rollout.merge_adapter {
            MergeAdapter::Auto => model.number == Number::Float32,
            MergeAdapter::Always => true,
            MergeAdapter::Never => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(overrides: &[&str], prompt: Option<u64>, card: &str) -> Result<String, String> {
        let overrides: Vec<_> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        let run = RunFile::parse("", "the test's run file", &overrides).unwrap();
        describe(&run, prompt, card.parse().unwrap()).map_err(|error| podium_service::logs::describe(&error))
    }

    #[test]
    fn processes_are_compared_with_the_card() {
        let text = described(&[], Some(100), "80GB").unwrap();
        for phase in ["head", "layers", "step", "prefill", "decode"] {
            assert!(text.contains(phase), "{text}");
        }
        assert_eq!(text.matches(", fits a GPU of 74.5 GiB").count(), 3, "{text}");
        let text = described(&["launch.colocate=none"], Some(100), "1MB").unwrap();
        assert_eq!(text.matches(", does not fit a GPU of 0.0 GiB").count(), 2, "{text}");
        let text = described(&["launch.colocate=share"], Some(100), "1MB").unwrap();
        assert_eq!(text.matches(", does not fit a GPU of 0.0 GiB").count(), 3, "{text}");
        let text =
            described(&["launch.colocate=process", "lora.rank=4", "rollout.threads=2"], Some(100), "80GB")
                .unwrap();
        assert!(text.contains("learner rank and worker in one process: "), "{text}");
        assert_eq!(text.matches("fits a GPU").count(), 1, "{text}");
        described(&["prompt.max_tokens=100"], None, "80GB").unwrap();
    }

    #[test]
    fn the_example_of_the_guide_is_the_output() {
        let folder = tempfile::tempdir().unwrap();
        let shape = r#"{"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728,
            "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
            "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": true}"#;
        std::fs::write(folder.path().join("config.json"), shape).unwrap();
        let path = format!("model.path={}", folder.path().display());
        let settings = [
            path.as_str(),
            "prompt.max_tokens=600",
            "learner.groups_per_micro_batch=4",
            "learner.recompute_layers=true",
            "learner.zero_stage=1",
            "launch.learner_ranks=2",
        ];
        let text = described(&settings, None, "80GB").unwrap();
        let guide = include_str!("../../../../docs/guides/memory.md");
        let lines = format!("    {}\n", text.replace('\n', "\n    "));
        assert!(guide.contains(&lines), "docs/guides/memory.md is out of date: expected\n{lines}");
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert!(described(&[], None, "80GB").unwrap_err().contains("set prompt.max_tokens"));
        let long = described(&[], Some(u64::MAX), "80GB").unwrap_err();
        assert!(long.contains("max_position_embeddings"), "{long}");
        let folder = tempfile::tempdir().unwrap();
        let path = format!("model.path={}", folder.path().display());
        let refused = described(&[&path], Some(100), "80GB").unwrap_err();
        assert!(refused.contains("expected config.json in the folder of model.path"), "{refused}");
        assert!(refused.contains(&folder.path().join("config.json").display().to_string()), "{refused}");
    }
}
