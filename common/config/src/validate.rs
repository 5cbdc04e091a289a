//! Ranges of single keys, and keys that have to go together.

use std::fmt::Display;

use crate::{Error, RunFile};

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

pub(crate) fn check(file: &RunFile) -> Result<(), Error> {
    file.grpo.validate()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name = &file.run.name;
    require(
        "run.name",
        format!("{name:?}"),
        !name.is_empty() && name.chars().all(plain),
        "letters, digits, - and _",
    )?;

    let rollout = &file.rollout;
    require(
        "rollout.group_size",
        rollout.group_size,
        rollout.group_size >= 2,
        "at least 2, since advantages compare within a group",
    )?;
    require(
        "rollout.prompts_per_step",
        rollout.prompts_per_step,
        rollout.prompts_per_step >= 1,
        "at least 1",
    )?;
    require(
        "rollout.prompts_per_lease",
        rollout.prompts_per_lease,
        rollout.prompts_per_lease >= 1,
        "at least 1",
    )?;
    let positive = |value: f64| value.is_finite() && value > 0.0;
    let not_negative = |value: f64| value.is_finite() && value >= 0.0;
    require("rollout.temperature", rollout.temperature, positive(rollout.temperature), "a number above 0")?;
    require(
        "rollout.top_p",
        rollout.top_p,
        rollout.top_p > 0.0 && rollout.top_p <= 1.0,
        "a number above 0, at most 1",
    )?;
    require("rollout.max_new_tokens", rollout.max_new_tokens, rollout.max_new_tokens >= 1, "at least 1")?;
    require("rollout.threads", rollout.threads, rollout.threads >= 1, "at least 1")?;

    let learner = &file.learner;
    require(
        "learner.learning_rate",
        learner.learning_rate,
        not_negative(learner.learning_rate),
        "a number of at least 0",
    )?;
    require(
        "learner.max_grad_norm",
        learner.max_grad_norm,
        positive(learner.max_grad_norm),
        "a number above 0",
    )?;
    require(
        "learner.adam_beta1",
        learner.adam_beta1,
        (0.0..1.0).contains(&learner.adam_beta1),
        "at least 0, below 1",
    )?;
    require(
        "learner.adam_beta2",
        learner.adam_beta2,
        (0.0..1.0).contains(&learner.adam_beta2),
        "at least 0, below 1",
    )?;
    require(
        "learner.adam_epsilon",
        learner.adam_epsilon,
        positive(learner.adam_epsilon),
        "a number above 0",
    )?;
    require(
        "learner.weight_decay",
        learner.weight_decay,
        not_negative(learner.weight_decay),
        "a number of at least 0",
    )?;
    require(
        "learner.groups_per_micro_batch",
        learner.groups_per_micro_batch,
        learner.groups_per_micro_batch >= 1,
        "at least 1",
    )?;
    require(
        "learner.checkpoint_every_steps",
        learner.checkpoint_every_steps,
        learner.checkpoint_every_steps >= 1,
        "at least 1",
    )?;
    require("learner.threads", learner.threads, learner.threads >= 1, "at least 1")?;

    let evaluation = &file.evaluation;
    require(
        "evaluation.prompts_per_lease",
        evaluation.prompts_per_lease,
        evaluation.prompts_per_lease >= 1,
        "at least 1",
    )?;
    require(
        "evaluation.temperature",
        evaluation.temperature,
        not_negative(evaluation.temperature),
        "a number of at least 0",
    )?;

    let sft = &file.sft;
    require("sft.batch_size", sft.batch_size, sft.batch_size >= 1, "at least 1")?;
    require("sft.micro_batch_size", sft.micro_batch_size, sft.micro_batch_size >= 1, "at least 1")?;
    require("sft.learning_rate", sft.learning_rate, positive(sft.learning_rate), "a number above 0")?;
    require("sft.weight_decay", sft.weight_decay, not_negative(sft.weight_decay), "a number of at least 0")?;

    let network = &file.network;
    let heartbeats =
        network.lease_deadline_ms >= 2 * network.heartbeat_interval_ms && network.heartbeat_interval_ms > 0;
    require(
        "network.lease_deadline_ms",
        network.lease_deadline_ms,
        heartbeats,
        format!("at least twice network.heartbeat_interval_ms ({})", network.heartbeat_interval_ms),
    )?;
    let message = (1 << 16..=1 << 31).contains(&network.max_message_bytes);
    require("network.max_message_bytes", network.max_message_bytes, message, "64 KiB to 2 GiB")?;
    require("launch.workers", file.launch.workers, file.launch.workers <= 1024, "at most 1024")?;
    require("launch.learner_ranks", file.launch.learner_ranks, file.launch.learner_ranks >= 1, "at least 1")
}
