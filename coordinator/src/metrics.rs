//! The coordinator's metrics. This module declares every name with its help text, and records the values.

pub mod rewards;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use podium_proto::v1;

use crate::machine::{Machine, Millis, Phase};
use crate::reports::watch::Findings;
use crate::scaling::{Advice, Bottleneck};
use crate::timeline::{self, COMPUTING};

const GROUPS: &str = "podium_coordinator_groups_total";
const GROUPS_SUBMITTED: &str = "podium_coordinator_groups_submitted_total";
const GROUPS_RECOVERED: &str = "podium_coordinator_groups_recovered_total";
const GROUPS_WAITING: &str = "podium_coordinator_groups_waiting";
const GROUPS_USED: &str = "podium_coordinator_groups_used_total";
const GROUPS_DISCARDED: &str = "podium_coordinator_groups_discarded_total";
const GROUPS_SET_ASIDE: &str = "podium_coordinator_groups_set_aside_total";
const ANSWERS: &str = "podium_coordinator_evaluation_answers_total";
const LEASES: &str = "podium_coordinator_leases_total";
const COMPLETIONS: &str = "podium_coordinator_completions_total";
const COMPLETION_TOKENS: &str = "podium_coordinator_completion_tokens_total";
const WORKERS: &str = "podium_coordinator_workers";
const WORKERS_LOST: &str = "podium_coordinator_workers_lost_total";
const OFFENCES: &str = "podium_coordinator_worker_offences_total";
const RANKS: &str = "podium_coordinator_learner_ranks";
const RANK_FAILURES: &str = "podium_coordinator_rank_failures_total";
const STEP: &str = "podium_coordinator_step";
const MAX_POLICY_LAG: &str = "podium_coordinator_max_policy_lag";
const STEPS: &str = "podium_coordinator_steps";
const POLICY_VERSION: &str = "podium_coordinator_policy_version";
const GROUPS_READY: &str = "podium_coordinator_groups_ready";
const GROUPS_WANTED: &str = "podium_coordinator_groups_wanted";
const EVALUATION_READY: &str = "podium_coordinator_evaluation_prompts_ready";
const EVALUATION_WANTED: &str = "podium_coordinator_evaluation_prompts_wanted";
const FINISHED: &str = "podium_coordinator_run_finished";
const STEP_METRIC: &str = "podium_coordinator_step_metric";
const EVALUATION_METRIC: &str = "podium_coordinator_evaluation_metric";
const INFLATED: &str = "podium_coordinator_reward_inflated";
const BEST_VERSION: &str = "podium_coordinator_best_policy_version";
const STEP_SECONDS: &str = "podium_coordinator_step_seconds";
const ACTIVITY_SECONDS: &str = "podium_coordinator_activity_seconds";
const COMPUTING_RATIO: &str = "podium_coordinator_computing_ratio";
const LAST_COMMIT: &str = "podium_coordinator_last_commit_timestamp_seconds";
const WORKER_IDLE: &str = "podium_coordinator_worker_idle_ratio";
const LEARNER_IDLE: &str = "podium_coordinator_learner_idle_ratio";
const BOTTLENECK: &str = "podium_coordinator_bottleneck";
const MORE_WORKERS: &str = "podium_coordinator_more_workers";
const DISK_FREE: &str = "podium_coordinator_disk_free_bytes";
const DISK_SIZE: &str = "podium_coordinator_disk_size_bytes";
const STORE_SECONDS: &str = "podium_coordinator_store_write_seconds";
const STORE_ERRORS: &str = "podium_coordinator_store_errors_total";
const POLICIES_MISSING: &str = "podium_coordinator_policies_missing";
const POLICIES_SUPERSEDED: &str = "podium_coordinator_policies_superseded_total";
const GROUPS_DROPPED: &str = "podium_coordinator_groups_dropped_total";
const OLDEST_LEASE: &str = "podium_coordinator_oldest_lease_seconds";
const SILENT_RANKS: &str = "podium_coordinator_silent_ranks";
const POLICY_BYTES: &str = "podium_coordinator_policy_bytes_total";
const REFUSED: &str = "podium_coordinator_requests_refused_total";

/// Metrics of a step that are also gauges; metrics.jsonl contains all of them.
const STEP_METRICS: [&str; 18] = [
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

/// Declares every metric. Must be called after the recorder is installed.
pub fn describe() {
    describe_counter!(GROUPS_SUBMITTED, "Groups of training steps that workers submitted.");
    describe_counter!(
        GROUPS,
        "Groups submitted by workers, by outcome: accepted, repeated, refused, failed."
    );
    describe_counter!(
        GROUPS_RECOVERED,
        "Accepted groups of steps not yet committed that this process found when it started."
    );
    describe_gauge!(GROUPS_WAITING, "Accepted groups of steps that are not committed.");
    describe_counter!(GROUPS_USED, "Groups of committed steps: each is counted once.");
    describe_counter!(GROUPS_DISCARDED, "Accepted groups of committed steps that dynamic sampling replaced.");
    describe_counter!(
        GROUPS_SET_ASIDE,
        "Accepted groups that a learner could not train on, and later attempts that depended on them."
    );
    describe_counter!(ANSWERS, "Held-out answers submitted, by outcome.");
    describe_counter!(LEASES, "Leases granted, and those that expired.");
    describe_counter!(COMPLETIONS, "Accepted training completions.");
    describe_counter!(COMPLETION_TOKENS, "Tokens of accepted training completions.");
    describe_gauge!(WORKERS, "Registered rollout workers that send heartbeats.");
    describe_counter!(WORKERS_LOST, "Workers that stopped sending heartbeats without disconnecting.");
    describe_counter!(OFFENCES, "Unusable results of workers, by the time of detection: submit, train.");
    describe_gauge!(RANKS, "Learner ranks that have joined.");
    describe_counter!(
        RANK_FAILURES,
        "Ranks that failed, by cause: not_finite, out_of_memory, collective, other."
    );
    describe_gauge!(SILENT_RANKS, "Learner ranks without a report for network.lease_deadline_ms.");
    describe_gauge!(OLDEST_LEASE, Unit::Seconds, "Age of the oldest lease that is held; 0 without one.");
    describe_gauge!(STEP, "Steps committed.");
    describe_gauge!(MAX_POLICY_LAG, "Maximum age of a group in versions (rollout.max_policy_lag).");
    describe_gauge!(STEPS, "Steps of the run.");
    describe_gauge!(POLICY_VERSION, "The newest policy version.");
    describe_gauge!(GROUPS_READY, "Stored groups of the step being sampled.");
    describe_gauge!(GROUPS_WANTED, "Groups of the step being sampled.");
    describe_gauge!(EVALUATION_READY, "Stored answers of the evaluation in progress.");
    describe_gauge!(EVALUATION_WANTED, "Prompts of the evaluation in progress.");
    describe_gauge!(FINISHED, "1 once all steps and evaluations are done.");
    describe_gauge!(STEP_METRIC, "Metrics of the last committed step, by name as in metrics.jsonl.");
    describe_gauge!(
        EVALUATION_METRIC,
        "Metrics of the last complete evaluation, by name and end of the interval."
    );
    rewards::describe();
    describe_gauge!(INFLATED, "1 while the reward rises and the validation ranking does not follow.");
    describe_gauge!(BEST_VERSION, "The policy version with the best validation NDCG so far.");
    describe_histogram!(STEP_SECONDS, Unit::Seconds, "Time from one committed step to the next.");
    describe_histogram!(
        ACTIVITY_SECONDS,
        Unit::Seconds,
        "Time of a step in which an activity was in progress in any process."
    );
    describe_gauge!(
        COMPUTING_RATIO,
        "Share of the last step in which a worker sampled or a rank computed its update."
    );
    describe_gauge!(
        LAST_COMMIT,
        Unit::Seconds,
        "Time of the last commit, or of the start of this process, since 1970."
    );
    describe_gauge!(WORKER_IDLE, "Share of their time that workers hold no lease, over about ten steps.");
    describe_gauge!(
        LEARNER_IDLE,
        "Share of its time that the learner waits for groups, over about ten steps."
    );
    describe_gauge!(BOTTLENECK, "1 for the side that makes the other wait: workers, learner.");
    describe_gauge!(
        MORE_WORKERS,
        "Additional workers that would increase throughput per process; negative if there are too many."
    );
    describe_gauge!(DISK_FREE, Unit::Bytes, "Free space of the file system of the output folder.");
    describe_gauge!(DISK_SIZE, Unit::Bytes, "Size of the file system of the output folder.");
    describe_histogram!(STORE_SECONDS, Unit::Seconds, "Time of a durable write of results or of a step.");
    describe_counter!(STORE_ERRORS, "Writes that failed: see the log for the remedy.");
    describe_gauge!(
        POLICIES_MISSING,
        "Policy versions that are needed and cannot be served, since their folder was removed or damaged."
    );
    describe_counter!(
        POLICIES_SUPERSEDED,
        "Policy versions whose content rank 0 replaced before their commit."
    );
    describe_counter!(GROUPS_DROPPED, "Accepted groups dropped because their policy version was superseded.");
    describe_counter!(POLICY_BYTES, Unit::Bytes, "Bytes of policy versions, sent and received.");
    describe_counter!(REFUSED, "Requests answered with an error, by gRPC code.");
    begin_counting();
}

/// Initializes every counter with 0, so that its first increase is visible.
fn begin_counting() {
    for counter in [
        GROUPS_SUBMITTED,
        GROUPS_USED,
        GROUPS_DISCARDED,
        GROUPS_SET_ASIDE,
        COMPLETIONS,
        COMPLETION_TOKENS,
        WORKERS_LOST,
    ] {
        counter!(counter).increment(0);
    }
    for counter in [STORE_ERRORS, POLICIES_SUPERSEDED, GROUPS_DROPPED] {
        counter!(counter).increment(0);
    }
    for outcome in ["accepted", "repeated", "refused", "failed"] {
        counter!(GROUPS, "outcome" => outcome).increment(0);
    }
    for event in ["granted", "expired"] {
        counter!(LEASES, "event" => event).increment(0);
    }
    // Versions on one host are linked and not transferred.
    for direction in ["received", "sent"] {
        for kind in ["full", "delta"] {
            policy_bytes(direction, kind, 0);
        }
    }
    for seen in ["submit", "train"] {
        counter!(OFFENCES, "seen" => seen).increment(0);
    }
    for failure in ["not_finite", "out_of_memory", "collective", "other"] {
        counter!(RANK_FAILURES, "failure" => failure).increment(0);
    }
}

/// Counts submitted groups.
pub fn submitted(groups: u64) {
    counter!(GROUPS_SUBMITTED).increment(groups);
}

/// Counts submitted groups whose storage or grading failed.
pub fn failed(groups: u64) {
    counter!(GROUPS, "outcome" => "failed").increment(groups);
}

/// Counts the outcomes of submitted results.
pub fn outcomes(training: bool, accepted: u32, repeated: u32, refused: u32) {
    let name = if training { GROUPS } else { ANSWERS };
    for (outcome, count) in [("accepted", accepted), ("repeated", repeated), ("refused", refused)] {
        counter!(name, "outcome" => outcome).increment(count.into());
    }
}

/// Counts accepted groups that were set aside.
pub fn set_aside(groups: u64) {
    counter!(GROUPS_SET_ASIDE).increment(groups);
}

/// Counts accepted completions and their tokens.
pub fn completions(count: usize, tokens: usize) {
    counter!(COMPLETIONS).increment(count as u64);
    counter!(COMPLETION_TOKENS).increment(tokens as u64);
}

/// Counts a granted lease.
pub fn lease_granted() {
    counter!(LEASES, "event" => "granted").increment(1);
}

/// Counts a lease that was not renewed in time.
pub fn lease_expired() {
    counter!(LEASES, "event" => "expired").increment(1);
}

/// Counts a lost worker.
pub fn worker_lost() {
    counter!(WORKERS_LOST).increment(1);
}

/// Counts unusable results of a worker; `seen`: `submit` or `train`, the time of detection.
pub fn offended(seen: &'static str) {
    counter!(OFFENCES, "seen" => seen).increment(1);
}

/// Counts a rank that failed.
pub fn rank_failed(kind: &'static str) {
    counter!(RANK_FAILURES, "failure" => kind).increment(1);
}

/// Records a committed step.
pub fn step_committed<'a>(
    groups: u32,
    seconds: f64,
    metrics: impl IntoIterator<Item = (&'a String, &'a f64)>,
) {
    counter!(GROUPS_USED).increment(groups.into());
    gauge!(LAST_COMMIT).set(seconds_since_1970());
    histogram!(STEP_SECONDS).record(seconds);
    for (name, value) in metrics {
        if name == "groups/discarded" {
            counter!(GROUPS_DISCARDED).increment(*value as u64);
        }
        if name == COMPUTING {
            gauge!(COMPUTING_RATIO).set(*value);
        } else if let Some(activity) = timeline::activity_of(name) {
            histogram!(ACTIVITY_SECONDS, "activity" => activity).record(*value);
        }
        if STEP_METRICS.contains(&name.as_str()) {
            gauge!(STEP_METRIC, "name" => name.clone()).set(*value);
        }
    }
}

/// Records the start of this process, and the number of groups that it recovered.
pub fn started(recovered: u64) {
    counter!(GROUPS_RECOVERED).increment(recovered);
    gauge!(LAST_COMMIT).set(seconds_since_1970());
}

/// Records the idle times and the advice for a run with this number of workers.
pub fn scaling(advice: &Advice, workers: u32) {
    gauge!(WORKER_IDLE).set(advice.worker_idle);
    gauge!(LEARNER_IDLE).set(advice.learner_idle);
    for (side, bottleneck) in [("workers", Bottleneck::Workers), ("learner", Bottleneck::Learner)] {
        gauge!(BOTTLENECK, "side" => side).set(f64::from(u8::from(advice.bottleneck == bottleneck)));
    }
    gauge!(MORE_WORKERS).set(f64::from(advice.workers) - f64::from(workers));
}

/// Records the number of silent ranks and the age of the oldest lease.
pub fn concerns(silent_ranks: usize, oldest_lease_ms: u64) {
    gauge!(SILENT_RANKS).set(silent_ranks as f64);
    gauge!(OLDEST_LEASE).set(oldest_lease_ms as f64 / 1e3);
}

/// Records the free space and the size of the disk.
pub fn disk(free: u64, size: u64) {
    gauge!(DISK_FREE).set(free as f64);
    gauge!(DISK_SIZE).set(size as f64);
}

fn seconds_since_1970() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

/// Records a complete evaluation.
pub fn evaluation_complete<'a>(metrics: impl IntoIterator<Item = (&'a String, &'a f64)>) {
    for (name, value) in metrics {
        gauge!(EVALUATION_METRIC, "name" => name.clone()).set(*value);
    }
}

/// Records the findings of the evaluations so far.
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

/// Records the number of needed policy versions that cannot be served.
pub fn policies_missing(count: usize) {
    gauge!(POLICIES_MISSING).set(count as f64);
}

/// Counts a policy version whose content was replaced, and the groups that were removed with it.
pub fn superseded(groups: u64) {
    counter!(POLICIES_SUPERSEDED).increment(1);
    counter!(GROUPS_DROPPED).increment(groups);
}

/// Counts bytes of a policy version.
pub fn policy_bytes(direction: &'static str, kind: &'static str, bytes: usize) {
    counter!(POLICY_BYTES, "direction" => direction, "kind" => kind).increment(bytes as u64);
}

/// Returns the kind of a chunk as a label of [`policy_bytes`].
pub const fn transfer_kind(chunk: &v1::Chunk) -> &'static str {
    if chunk.delta_bytes == 0 { "full" } else { "delta" }
}

/// Counts a request that was answered with an error.
pub fn refused(code: tonic::Code) {
    counter!(REFUSED, "code" => format!("{code:?}")).increment(1);
}

/// Sets the gauges of the run's state.
pub fn run_state(machine: &Machine, now: Millis) {
    let (sampling, evaluating) = (machine.sampling(), machine.evaluating());
    gauge!(WORKERS).set(machine.workers(now).count() as f64);
    gauge!(RANKS).set(machine.rank_group().joined());
    gauge!(STEP).set(machine.committed().0 as f64);
    gauge!(STEPS).set(machine.last_version().0 as f64);
    gauge!(MAX_POLICY_LAG).set(machine.schedule().max_policy_lag as f64);
    gauge!(POLICY_VERSION).set(machine.latest().0 as f64);
    gauge!(GROUPS_READY).set(sampling.ready);
    gauge!(GROUPS_WANTED).set(sampling.wanted);
    gauge!(GROUPS_WAITING).set(machine.waiting_groups() as f64);
    gauge!(EVALUATION_READY).set(evaluating.ready);
    gauge!(EVALUATION_WANTED).set(evaluating.wanted);
    gauge!(FINISHED).set(f64::from(u8::from(machine.phase() == Phase::Finished)));
}
