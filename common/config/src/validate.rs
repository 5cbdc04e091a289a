//! Checks ranges of single keys and constraints between keys.

use std::fmt::Display;

use podium_recsys::dataset::{HeldOut, Validation};

use crate::devices::Devices;
use crate::error::Error;
use crate::run_file::RunFile;
use crate::sections::{Colocate, Evaluation, Learner, Lora, Network, Rollout, Sft, Stage};

fn require(
    key: &'static str,
    value: impl Display,
    holds: bool,
    expected: impl Into<String>,
) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::Range { key, value: value.to_string(), expected: expected.into() })
    }
}

fn at_least_one(key: &'static str, value: impl Into<u64>) -> Result<(), Error> {
    let value = value.into();
    require(key, value, value >= 1, "at least 1")
}

fn positive(key: &'static str, value: f64) -> Result<(), Error> {
    require(key, value, value.is_finite() && value > 0.0, "a number above 0")
}

fn not_negative(key: &'static str, value: f64) -> Result<(), Error> {
    require(key, value, value.is_finite() && value >= 0.0, "a number of at least 0")
}

fn decay(key: &'static str, value: f64) -> Result<(), Error> {
    require(key, value, (0.0..1.0).contains(&value), "at least 0, below 1")
}

pub(crate) fn check(file: &RunFile) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name = &file.run.name;
    let holds = !name.is_empty() && name.chars().all(plain);
    require("run.name", format!("{name:?}"), holds, "letters, digits, - and _")?;
    stages(&file.run.stages, &file.lora)?;
    file.grpo.validate()?;
    let (listed, candidates) = (file.answer.list_length, file.candidates.count);
    let expected = format!("1 to candidates.count ({candidates})");
    require("answer.list_length", listed, (1..=candidates).contains(&listed), expected)?;
    file.rewards()?;
    lora(&file.lora)?;
    rollout(&file.rollout)?;
    learner(&file.learner)?;
    let stage = file.learner.zero_stage;
    let moving_reference = file.grpo.beta != 0.0 && file.grpo.sync_ref_model;
    let expected = "0 with grpo.sync_ref_model, whose reference follows all weights on every rank";
    require("learner.zero_stage", stage, stage == 0 || !moving_reference, expected)?;
    evaluation(&file.evaluation)?;
    held_out(file)?;
    file.watch.check()?;
    sft(&file.sft)?;
    network(&file.network)?;
    let workers = file.launch.workers.unwrap_or_default();
    require("launch.workers", workers, workers <= 1024, "at most 1024")?;
    at_least_one("launch.learner_ranks", file.launch.learner_ranks)?;
    device("launch.rollout_device", &file.launch.rollout_device)?;
    device("launch.learner_device", &file.launch.learner_device)?;
    one_process(file)
}

/// Checks a run whose worker and learner rank are one process. An evaluation has no learner rank.
fn one_process(file: &RunFile) -> Result<(), Error> {
    if file.launch.colocate != Colocate::Process || file.run.steps == 0 {
        return Ok(());
    }
    let because = |expected: &str| format!("{expected} with launch.colocate = \"process\"");
    let ranks = file.launch.learner_ranks;
    require("launch.learner_ranks", ranks, ranks == 1, because("1"))?;
    let workers = file.launch.workers.unwrap_or(1);
    require("launch.workers", workers, workers == 1, because("1, or no value,"))?;
    let merges = file.run.stages.contains(&Stage::Merge);
    let adapted = file.lora.rank > 0 || file.lora.adapter.is_some() && !merges;
    let expected =
        because("an adapter to train, since worker and learner share the base weights") + "; or \"share\"";
    require("lora.rank", file.lora.rank, adapted, expected)?;
    let (threads, wanted) = (file.rollout.threads, file.learner.threads);
    let expected = because(&format!(
        "the value of learner.threads ({wanted}), since a process has one number of threads,"
    ));
    require("rollout.threads", threads, threads == wanted, expected)?;
    let (device, wanted) = (&file.launch.rollout_device, &file.launch.learner_device);
    let expected = because(&format!("the value of launch.learner_device ({wanted:?})"));
    require("launch.rollout_device", format!("{device:?}"), device == wanted, expected)
}

fn device(key: &'static str, text: &str) -> Result<(), Error> {
    let expected = "cpu, cuda, auto, cuda:<index>, or a comma-separated list of cuda:<index>";
    require(key, format!("{text:?}"), Devices::parse(text).is_some(), expected)
}

fn stages(stages: &[Stage], lora: &Lora) -> Result<(), Error> {
    let names = format!("{stages:?}").to_lowercase();
    let in_order = !stages.is_empty() && stages.is_sorted_by(|one, next| one < next);
    require("run.stages", &names, in_order, "at least one of sft, merge and grpo, in this order")?;
    let merged = !stages.contains(&Stage::Merge) || (stages.contains(&Stage::Sft) && lora.is_used());
    let expected =
        "sft before merge and an adapter to train (lora.rank or lora.adapter), where there is merge";
    require("run.stages", &names, merged, expected)
}

fn lora(lora: &Lora) -> Result<(), Error> {
    require("lora.rank", lora.rank, lora.rank <= 1024, "at most 1024")?;
    positive("lora.alpha", lora.alpha)?;
    decay("lora.dropout", lora.dropout)?;
    let expected = "all-linear, or at least one name of a linear layer";
    require("lora.targets", "empty", !lora.targets.is_empty(), expected)
}

fn rollout(rollout: &Rollout) -> Result<(), Error> {
    let size = rollout.group_size;
    require("rollout.group_size", size, size >= 2, "at least 2, since advantages compare within a group")?;
    at_least_one("rollout.prompts_per_step", rollout.prompts_per_step)?;
    at_least_one("rollout.prompts_per_lease", rollout.prompts_per_lease)?;
    positive("rollout.temperature", rollout.temperature)?;
    let top_p = rollout.top_p;
    require("rollout.top_p", top_p, top_p > 0.0 && top_p <= 1.0, "a number above 0, at most 1")?;
    at_least_one("rollout.max_new_tokens", rollout.max_new_tokens)?;
    let attempts = rollout.refill_attempts;
    require("rollout.refill_attempts", attempts, attempts <= 100, "at most 100")?;
    let lag = rollout.max_policy_lag;
    require("rollout.max_policy_lag", lag, lag <= 100, "at most 100")?;
    at_least_one("rollout.prefill_tokens", rollout.prefill_tokens)?;
    at_least_one("rollout.threads", rollout.threads)
}

fn learner(learner: &Learner) -> Result<(), Error> {
    not_negative("learner.learning_rate", learner.learning_rate)?;
    positive("learner.max_grad_norm", learner.max_grad_norm)?;
    not_negative("learner.max_logprob_gap_nats", learner.max_logprob_gap_nats)?;
    decay("learner.adam_beta1", learner.adam_beta1)?;
    decay("learner.adam_beta2", learner.adam_beta2)?;
    positive("learner.adam_epsilon", learner.adam_epsilon)?;
    not_negative("learner.weight_decay", learner.weight_decay)?;
    at_least_one("learner.groups_per_micro_batch", learner.groups_per_micro_batch)?;
    require("learner.zero_stage", learner.zero_stage, learner.zero_stage <= 1, "0 or 1")?;
    at_least_one("learner.checkpoint_every_steps", learner.checkpoint_every_steps)?;
    at_least_one("learner.threads", learner.threads)
}

fn evaluation(evaluation: &Evaluation) -> Result<(), Error> {
    at_least_one("evaluation.prompts_per_lease", evaluation.prompts_per_lease)?;
    not_negative("evaluation.temperature", evaluation.temperature)
}

/// Checks that no choice of a run depends on the test part, and that early stopping has users to decide by.
fn held_out(file: &RunFile) -> Result<(), Error> {
    let part = file.evaluation.part;
    let expected = "\"validation\" in a run that trains, because its choices depend on the evaluated part; `podium evaluate` \
                    evaluates \"test\"";
    let is_allowed = part == HeldOut::Validation || file.run.steps == 0;
    require("evaluation.part", format!("\"{part}\""), is_allowed, expected)?;
    let patience = file.watch.stop_after_evaluations;
    let decides = patience == 0 || file.data.validation != Validation::None;
    let expected = "0 with data.validation = \"none\", because no version is evaluated";
    require("watch.stop_after_evaluations", patience, decides, expected)
}

fn sft(sft: &Sft) -> Result<(), Error> {
    at_least_one("sft.longest_tokens", sft.longest_tokens as u64)?;
    at_least_one("sft.batch_size", sft.batch_size)?;
    at_least_one("sft.micro_batch_size", sft.micro_batch_size)?;
    positive("sft.learning_rate", sft.learning_rate)?;
    not_negative("sft.weight_decay", sft.weight_decay)
}

fn network(network: &Network) -> Result<(), Error> {
    let (deadline, heartbeat) = (network.lease_deadline_ms, network.heartbeat_interval_ms);
    at_least_one("network.heartbeat_interval_ms", heartbeat)?;
    let expected = format!("at least twice network.heartbeat_interval_ms ({heartbeat})");
    require("network.lease_deadline_ms", deadline, deadline / 2 >= heartbeat, expected)?;
    let bytes = network.max_message_bytes;
    require("network.max_message_bytes", bytes, (1 << 16..=1 << 31).contains(&bytes), "64 KiB to 2 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_trains_never_evaluates_the_test_part() {
        let read = |changes: &[&str]| {
            let flags: Vec<_> = changes.iter().map(|flag| flag.parse().expect("an assignment")).collect();
            RunFile::parse("", "test", &flags).map_err(|error| error.to_string())
        };
        let error = read(&["evaluation.part=test"]).unwrap_err();
        assert!(
            error.contains("evaluation.part is \"test\": expected \"validation\" in a run that trains"),
            "{error}"
        );
        assert_eq!(read(&["evaluation.part=test", "run.steps=0"]).unwrap().evaluation.part, HeldOut::Test);
        let stops = ["data.validation=none", "watch.stop_after_evaluations=2"];
        assert!(read(&stops).unwrap_err().contains("no version is evaluated"));
        read(&stops[..1]).unwrap();
    }

    #[test]
    fn one_process_requires_an_adapter_one_pair_and_equal_threads_and_devices() {
        let base = ["launch.colocate=process", "lora.rank=4", "learner.threads=1"];
        let read = |changes: &[&str]| {
            let flags: Vec<_> =
                base.iter().chain(changes).map(|flag| flag.parse().expect("an assignment")).collect();
            RunFile::parse("", "test", &flags).map_err(|error| error.to_string())
        };
        read(&[]).unwrap();
        read(&["launch.workers=1", "lora.rank=0", "lora.adapter=a"]).unwrap();
        for (change, expected) in [
            ("lora.rank=0", "lora.rank is 0: expected an adapter to train"),
            ("launch.workers=2", "launch.workers is 2: expected 1"),
            ("launch.learner_ranks=2", "launch.learner_ranks is 2: expected 1"),
            ("learner.threads=2", "rollout.threads is 1: expected the value of learner.threads (2)"),
            ("launch.rollout_device=cpu", "launch.rollout_device is \"cpu\": expected the value of"),
        ] {
            let error = read(&[change]).unwrap_err();
            assert!(error.contains(expected) && error.contains("launch.colocate = \"process\""), "{error}");
            // An evaluation has no learner rank.
            read(&[change, "run.steps=0"]).unwrap();
        }
        let merged = ["lora.rank=0", "lora.adapter=a", "run.stages=['sft','merge','grpo']"];
        assert!(read(&merged).unwrap_err().contains("lora.rank is 0"));
    }
}
