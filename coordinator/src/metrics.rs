//! The coordinator's metrics. Every name is declared here, with its help text, and recorded through a function here.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::machine::{Machine, Millis, Phase};
use crate::reports::watch::Findings;

const GROUPS: &str = "podium_coordinator_groups_total";
const GROUPS_USED: &str = "podium_coordinator_groups_used_total";
const GROUPS_DISCARDED: &str = "podium_coordinator_groups_discarded_total";
const ANSWERS: &str = "podium_coordinator_evaluation_answers_total";
const LEASES: &str = "podium_coordinator_leases_total";
const COMPLETIONS: &str = "podium_coordinator_completions_total";
const COMPLETION_TOKENS: &str = "podium_coordinator_completion_tokens_total";
const WORKERS: &str = "podium_coordinator_workers";
const WORKERS_LOST: &str = "podium_coordinator_workers_lost_total";
const RANKS: &str = "podium_coordinator_learner_ranks";
const STEP: &str = "podium_coordinator_step";
const STEPS: &str = "podium_coordinator_steps";
const POLICY_VERSION: &str = "podium_coordinator_policy_version";
const GROUPS_READY: &str = "podium_coordinator_groups_ready";
const GROUPS_WANTED: &str = "podium_coordinator_groups_wanted";
const EVALUATION_READY: &str = "podium_coordinator_evaluation_prompts_ready";
const EVALUATION_WANTED: &str = "podium_coordinator_evaluation_prompts_wanted";
const FINISHED: &str = "podium_coordinator_run_finished";
const STEP_FIGURE: &str = "podium_coordinator_step_figure";
const EVALUATION_FIGURE: &str = "podium_coordinator_evaluation_figure";
const INFLATED: &str = "podium_coordinator_reward_inflated";
const BEST_VERSION: &str = "podium_coordinator_best_policy_version";
const STEP_SECONDS: &str = "podium_coordinator_step_seconds";
const STORE_SECONDS: &str = "podium_coordinator_store_write_seconds";
const STORE_ERRORS: &str = "podium_coordinator_store_errors_total";
const POLICY_BYTES: &str = "podium_coordinator_policy_bytes_total";
const REFUSED: &str = "podium_coordinator_requests_refused_total";

/// Figures of a step that are also gauges; the rest is in metrics.jsonl.
const STEP_FIGURES: [&str; 18] = [
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "groups/frac_zero_std_first",
    "groups/policy_lag/max",
    "kl",
    "entropy",
    "grad_norm",
    "completions/mean_length",
    "completions/clipped_ratio",
    "completions/well_formed",
    "groups/frac_all_hit",
    "groups/frac_all_miss",
    "groups/frac_all_malformed",
    "ranking/copied_order",
    "ranking/order_correlation",
    "ranking/first_position",
    "ranking/first_popularity",
];

/// Declares every metric. Call once the recorder is installed.
pub fn describe() {
    describe_counter!(
        GROUPS,
        "Groups handed in by workers, by what became of them: accepted, repeated, refused."
    );
    describe_counter!(GROUPS_USED, "Groups of committed steps: each is counted once.");
    describe_counter!(GROUPS_DISCARDED, "Accepted groups of committed steps that dynamic sampling replaced.");
    describe_counter!(ANSWERS, "Held-out answers handed in, by what became of them.");
    describe_counter!(LEASES, "Leases granted, and those that expired.");
    describe_counter!(COMPLETIONS, "Accepted training completions.");
    describe_counter!(COMPLETION_TOKENS, "Tokens of accepted training completions.");
    describe_gauge!(
        WORKERS,
        "Rollout workers that are registered and have spoken within the lease deadline."
    );
    describe_counter!(WORKERS_LOST, "Workers that fell silent without leaving.");
    describe_gauge!(RANKS, "Learner ranks that have joined.");
    describe_gauge!(STEP, "Steps committed.");
    describe_gauge!(STEPS, "Steps of the run.");
    describe_gauge!(POLICY_VERSION, "The newest policy version.");
    describe_gauge!(GROUPS_READY, "Groups of the step being sampled that are there.");
    describe_gauge!(GROUPS_WANTED, "Groups of the step being sampled.");
    describe_gauge!(EVALUATION_READY, "Answers of the evaluation under way that are there.");
    describe_gauge!(EVALUATION_WANTED, "Prompts of the evaluation under way.");
    describe_gauge!(FINISHED, "1 once all steps and evaluations are done.");
    describe_gauge!(STEP_FIGURE, "Figures of the last committed step, by name as in metrics.jsonl.");
    describe_gauge!(
        EVALUATION_FIGURE,
        "Figures of the last complete evaluation, by name and end of the interval."
    );
    describe_gauge!(INFLATED, "1 while the reward rises and the held-out ranking does not follow.");
    describe_gauge!(BEST_VERSION, "The policy version with the best held-out NDCG so far.");
    describe_histogram!(STEP_SECONDS, Unit::Seconds, "Time from one committed step to the next.");
    describe_histogram!(STORE_SECONDS, Unit::Seconds, "Time of a durable write of results or of a step.");
    describe_counter!(STORE_ERRORS, "Writes that failed: see the log for the remedy.");
    describe_counter!(POLICY_BYTES, Unit::Bytes, "Bytes of policy versions, sent and received.");
    describe_counter!(REFUSED, "Requests answered with an error, by gRPC code.");
}

/// Counts results that were handed in.
pub fn submitted(training: bool, accepted: u32, repeated: u32, refused: u32) {
    let name = if training { GROUPS } else { ANSWERS };
    for (outcome, count) in [("accepted", accepted), ("repeated", repeated), ("refused", refused)] {
        counter!(name, "outcome" => outcome).increment(count.into());
    }
}

/// Counts accepted completions and their tokens.
pub fn completions(count: usize, tokens: usize) {
    counter!(COMPLETIONS).increment(count as u64);
    counter!(COMPLETION_TOKENS).increment(tokens as u64);
}

/// Counts a lease that was given out.
pub fn lease_granted() {
    counter!(LEASES, "event" => "granted").increment(1);
}

/// Counts a lease that was not kept alive.
pub fn lease_expired() {
    counter!(LEASES, "event" => "expired").increment(1);
}

/// Counts a worker that fell silent.
pub fn worker_lost() {
    counter!(WORKERS_LOST).increment(1);
}

/// Records a committed step.
pub fn step_committed<'a>(
    groups: u32,
    seconds: f64,
    figures: impl IntoIterator<Item = (&'a String, &'a f64)>,
) {
    counter!(GROUPS_USED).increment(groups.into());
    histogram!(STEP_SECONDS).record(seconds);
    for (name, value) in figures {
        if name == "groups/discarded" {
            counter!(GROUPS_DISCARDED).increment(*value as u64);
        }
        if STEP_FIGURES.contains(&name.as_str()) {
            gauge!(STEP_FIGURE, "name" => name.clone()).set(*value);
        }
    }
}

/// Records a complete evaluation.
pub fn evaluation_complete<'a>(figures: impl IntoIterator<Item = (&'a String, &'a f64)>) {
    for (name, value) in figures {
        gauge!(EVALUATION_FIGURE, "name" => name.clone()).set(*value);
    }
}

/// Records what the evaluations so far come to.
pub fn findings(findings: &Findings) {
    gauge!(INFLATED).set(f64::from(u8::from(findings.warning.is_some())));
    if let Some((version, _)) = findings.best {
        gauge!(BEST_VERSION).set(version.0 as f64);
    }
}

/// Records a write to the store.
pub fn store_write(took: Duration, succeeded: bool) {
    histogram!(STORE_SECONDS).record(took.as_secs_f64());
    if !succeeded {
        counter!(STORE_ERRORS).increment(1);
    }
}

/// Counts bytes of a policy version.
pub fn policy_bytes(direction: &'static str, bytes: usize) {
    counter!(POLICY_BYTES, "direction" => direction).increment(bytes as u64);
}

/// Counts a request that was answered with an error.
pub fn refused(code: tonic::Code) {
    counter!(REFUSED, "code" => format!("{code:?}")).increment(1);
}

/// Sets the gauges that show where the run stands.
pub fn standing(machine: &Machine, now: Millis) {
    let (sampling, evaluating) = (machine.sampling(), machine.evaluating());
    gauge!(WORKERS).set(machine.workers(now).count() as f64);
    gauge!(RANKS).set(machine.world().joined());
    gauge!(STEP).set(machine.committed().0 as f64);
    gauge!(STEPS).set(machine.last_version().0 as f64);
    gauge!(POLICY_VERSION).set(machine.latest().0 as f64);
    gauge!(GROUPS_READY).set(sampling.ready);
    gauge!(GROUPS_WANTED).set(sampling.wanted);
    gauge!(EVALUATION_READY).set(evaluating.ready);
    gauge!(EVALUATION_WANTED).set(evaluating.wanted);
    gauge!(FINISHED).set(f64::from(u8::from(machine.phase() == Phase::Finished)));
}
