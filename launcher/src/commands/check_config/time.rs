//! The duration and cost of a step, computed from the run file, the model's shape, and the rates of a machine.

use std::fmt::Write;

use podium_config::{Colocate, MergeAdapter, RunFile};
use podium_memory::Number;
use podium_step_time::{GPUS_PER_HOST, Phase, Plan, Policy, Prediction, Side, delta_ratio};

use super::machine::{self, Machine};
use super::shape::{self, Shape, number};
use crate::cli::ComputedFlags;

/// The reasons why time cannot be computed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Shape(#[from] shape::Error),
    #[error(transparent)]
    Machine(#[from] machine::Error),
    #[error(
        "the policy computes in {found} (model.dtype), and the rates of {machine} are those of {expected}: expected {expected}"
    )]
    Number { machine: String, found: &'static str, expected: &'static str },
    #[error(
        "{workers} workers and {ranks} learner ranks need {needed} GPUs, --gpus is {gpus}: expected at least as many"
    )]
    Gpus { workers: u64, ranks: u64, needed: u64, gpus: u64 },
    #[error(transparent)]
    Plan(#[from] podium_step_time::Error),
}

/// Returns a table of the phases of a step, its duration and its cost on `machine`: a GPU's name, or a file.
pub(super) fn describe(run: &RunFile, machine: &str, flags: &ComputedFlags) -> Result<String, Error> {
    let machine = Machine::of(machine)?;
    let plan = plan(run, &machine, flags)?;
    let prediction = plan.predict()?;
    let Plan { workers, ranks, prompt_tokens, completion_tokens, .. } = plan;
    let mut text = format!(
        "time of a step on {} x {}, workers {workers}, learner ranks {ranks}{}, computed for prompts of {prompt_tokens} \
         tokens and completions of {completion_tokens}:\n",
        plan.devices(),
        machine.name(),
        if plan.shared { " on the same devices" } else { "" },
    );
    text += "  process       phase           seconds  limited by";
    let processes = [("worker", &prediction.sampling), ("learner rank", &prediction.training)];
    for (process, phases) in processes {
        for Phase { name, seconds, limit } in phases {
            let process = if *name == "coordinator" { name } else { process };
            let _ = write!(text, "\n  {process:12}  {name:14}  {seconds:7.2}  {limit}");
        }
    }
    text += &totals(&plan, &prediction);
    Ok(text)
}

fn totals(plan: &Plan, prediction: &Prediction) -> String {
    let Prediction { step_seconds, bottleneck, tokens_per_second, cost_of_1000_steps, .. } = prediction;
    let hourly = prediction.steps_per_hour();
    let mut text = format!(
        "\n  step: {step_seconds:.2} s, {hourly:.0} steps per hour, {tokens_per_second:.0} completion tokens per second"
    );
    if plan.price > 0.0 {
        let price = plan.price;
        let _ =
            write!(text, ", {cost_of_1000_steps:.2} USD per 1,000 steps at {price:.2} USD per GPU and hour");
    }
    let side = match prediction.side {
        Side::Both => "sampling and training alternate",
        Side::Workers => "the learner waits for workers",
        Side::Learner => "workers wait for the learner",
        Side::Age => "the age of groups is bounded",
    };
    let Phase { name, limit, .. } = bottleneck;
    let _ = write!(text, "\n  bottleneck: {name}, limited by {limit}; {side}");
    text
}

fn plan(run: &RunFile, machine: &Machine, flags: &ComputedFlags) -> Result<Plan, Error> {
    let Shape { config, adapter, prompt_tokens } =
        Shape::of(run, flags.prompt_tokens, flags.completion_tokens)?;
    let device = machine.device();
    let number = number(run, if device.fused { "cpu" } else { "cuda" });
    let rates = if device.fused { Number::Float32 } else { Number::Bfloat16 };
    if number != rates {
        let [found, expected] = [number, rates].map(name_of);
        return Err(Error::Number { machine: machine.name().to_owned(), found, expected });
    }
    let policy = Policy::new(&config, number, adapter.as_ref()).map_err(shape::Error::from)?;
    let (rollout, learner, launch) = (&run.rollout, &run.learner, &run.launch);
    let ranks = u64::from(launch.learner_ranks);
    let left = flags.gpus.map_or(1, |gpus| gpus.saturating_sub(ranks).max(1));
    let workers = launch.workers.map_or(left, u64::from);
    let shared = match launch.colocate {
        Colocate::Process => true,
        Colocate::Share => flags.gpus.is_none_or(|gpus| gpus < workers + ranks),
        Colocate::Auto => workers == 1 && ranks == 1 && flags.gpus.is_none_or(|gpus| gpus == 1),
        Colocate::None => false,
    };
    let all_weights = adapter.is_none() && number == Number::Bfloat16;
    let deltas = run.network.policy_deltas && all_weights;
    let mut plan = Plan {
        prompts_per_step: u64::from(rollout.prompts_per_step),
        group_size: u64::from(rollout.group_size),
        prompt_tokens,
        completion_tokens: flags.completion_tokens.unwrap_or(u64::from(rollout.max_new_tokens)),
        prompts_per_lease: u64::from(rollout.prompts_per_lease),
        prefill_tokens: u64::from(rollout.prefill_tokens),
        merged: match rollout.merge_adapter {
            MergeAdapter::Auto => number == Number::Float32,
            MergeAdapter::Always => true,
            MergeAdapter::Never => false,
        },
        workers,
        ranks,
        shared,
        max_policy_lag: rollout.max_policy_lag,
        groups_per_micro_batch: u64::from(learner.groups_per_micro_batch),
        recompute_layers: learner.recompute_layers,
        reference: run.grpo.beta != 0.0,
        passes: u64::from(run.grpo.num_iterations),
        sharded: learner.zero_stage == 1,
        checkpoint_every_steps: learner.checkpoint_every_steps,
        delta_ratio: delta_ratio(learner.learning_rate).filter(|_| deltas),
        price: flags.price.unwrap_or(machine.price()),
        ..Plan::new(policy, device, machine.links(ranks))
    };
    let needed = plan.devices();
    if let Some(gpus) = flags.gpus.filter(|gpus| *gpus < needed) {
        return Err(Error::Gpus { workers, ranks, needed, gpus });
    }
    if !device.fused && needed > GPUS_PER_HOST {
        plan.worker_hosts = workers.div_ceil(GPUS_PER_HOST);
    }
    Ok(plan)
}

const fn name_of(number: Number) -> &'static str {
    match number {
        Number::Float32 => "float32",
        Number::Bfloat16 => "bfloat16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Computed;

    const SHAPE: &str = r#"{"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": true}"#;

    fn described(overrides: &[&str], machine: &str, gpus: Option<u64>) -> Result<String, String> {
        let overrides: Vec<_> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        let run = RunFile::parse("", "the test's run file", &overrides).unwrap();
        let flags = ComputedFlags {
            what: Computed { memory: None, time: Some(machine.to_owned()) },
            gpus,
            ..ComputedFlags::default()
        };
        describe(&run, machine, &flags).map_err(|error| podium_service::logs::describe(&error))
    }

    #[test]
    fn the_example_of_the_guide_is_the_output() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), SHAPE).unwrap();
        let path = format!("model.path={}", folder.path().display());
        let settings = [
            path.as_str(),
            "lora.rank=16",
            "grpo.beta=0.1",
            "prompt.max_tokens=600",
            "learner.recompute_layers=true",
            "rollout.max_policy_lag=1",
        ];
        let text = described(&settings, "h100", Some(8)).unwrap();
        let guide = include_str!("../../../../docs/guides/step-time.md");
        let lines = format!("    {}\n", text.replace('\n', "\n    "));
        assert!(guide.contains(&lines), "docs/guides/step-time.md is out of date: expected\n{lines}");
    }

    #[test]
    fn measured_rates_are_those_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rates.json");
        let name = path.display().to_string();
        let settings = ["prompt.max_tokens=100"];
        assert!(
            described(&settings, &name, None)
                .unwrap_err()
                .contains("neither a file nor a known GPU: expected h100")
        );
        std::fs::write(&path, r#"{"device": "cpu"}"#).unwrap();
        assert!(described(&settings, &name, None).unwrap_err().contains("has no measured rates"));
        let rates = r#"{"device": "cpu", "rates": {"few_rows_flops_per_second": 1e11,
            "many_rows_flops_per_second": 1e11, "attention_flops_per_second": 5e10, "bytes_per_second": 1e10,
            "launch_seconds": 1e-6, "number": "float32"}}"#;
        std::fs::write(&path, rates).unwrap();
        let text = described(&settings, &name, None).unwrap();
        assert!(text.contains("time of a step on 1 x cpu") && !text.contains("USD"), "{text}");
        let zero = rates.replace("1e10", "0");
        std::fs::write(&path, zero).unwrap();
        assert!(described(&settings, &name, None).unwrap_err().contains("the memory bandwidth is 0"));
    }

    #[test]
    fn too_few_gpus_are_refused() {
        let settings = ["prompt.max_tokens=100", "launch.workers=3", "launch.learner_ranks=2"];
        let refused = described(&settings, "h100", Some(4)).unwrap_err();
        assert!(refused.contains("3 workers and 2 learner ranks need 5 GPUs, --gpus is 4"), "{refused}");
        let share = [&settings[..], &["launch.colocate=share"]].concat();
        assert!(described(&share, "h100", Some(4)).unwrap().contains("on 3 x h100"));
    }
}
