//! The Prometheus metrics of this process.

use std::time::{Duration, Instant};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use podium_proto::v1;

use crate::lease::{Cost, Outcome};

const LEASES: &str = "podium_rollout_leases_total";
const RESULTS: &str = "podium_rollout_results_total";
const REGISTRATIONS: &str = "podium_rollout_registrations_total";
const PROMPT_TOKENS: &str = "podium_rollout_prompt_tokens_total";
const COMPLETION_TOKENS: &str = "podium_rollout_completion_tokens_total";
const SAMPLING: &str = "podium_rollout_sampling_seconds";
const PREFILL: &str = "podium_rollout_prefill_seconds";
const DECODE: &str = "podium_rollout_decode_seconds";
const IDLE: &str = "podium_rollout_idle_seconds";
const IDLE_RATIO: &str = "podium_rollout_idle_ratio";
const POLICY_VERSION: &str = "podium_rollout_policy_version";
const POLICY_FETCH: &str = "podium_rollout_policy_fetch_seconds";
const POLICY_LOAD: &str = "podium_rollout_policy_load_seconds";
const OUT_OF_MEMORY: &str = "podium_rollout_out_of_memory_total";
const FLOPS: &str = "podium_rollout_model_flops_per_second";

/// Weight of the previous idle share against that of the latest lease.
const MEMORY: f64 = 0.9;

/// Declares every metric with its help text, after the recorder is installed.
pub fn describe() {
    describe_counter!(LEASES, "Leases by outcome: submitted, lost, returned");
    describe_counter!(RESULTS, "Submitted groups, by the coordinator's answer: accepted, repeated, refused");
    describe_counter!(REGISTRATIONS, "Registrations with the coordinator; more than one after its restarts");
    describe_counter!(PROMPT_TOKENS, "Prompt tokens computed, each prompt once for all of its completions");
    describe_counter!(COMPLETION_TOKENS, "Completion tokens sampled");
    describe_histogram!(SAMPLING, Unit::Seconds, "Time to sample one lease");
    describe_histogram!(PREFILL, Unit::Seconds, "Time until every completion of a lease had its first token");
    describe_histogram!(
        DECODE,
        Unit::Seconds,
        "Time from the first token of a lease's completions to their last"
    );
    describe_histogram!(
        IDLE,
        Unit::Seconds,
        "Time between the sampling of two leases: requesting, downloading, loading"
    );
    describe_counter!(
        OUT_OF_MEMORY,
        "Number of times that a batch did not fit into the device's memory and was sampled in parts"
    );
    describe_gauge!(
        FLOPS,
        "Floating point operations of the model per second of sampling, over about the last ten leases; without \
         recomputation"
    );
    describe_gauge!(IDLE_RATIO, "Fraction of time without sampling, over about the last ten leases");
    describe_gauge!(POLICY_VERSION, "The policy version of the last sampled lease");
    describe_histogram!(POLICY_FETCH, Unit::Seconds, "Time to download and verify a policy version");
    describe_histogram!(POLICY_LOAD, Unit::Seconds, "Time to load a policy version onto the device");
    // A counter must exist before its first increase to be visible in rates.
    for outcome in ["submitted", "lost", "returned"] {
        counter!(LEASES, "outcome" => outcome).increment(0);
    }
    for outcome in ["accepted", "repeated", "refused"] {
        counter!(RESULTS, "outcome" => outcome).increment(0);
    }
    for counter in [REGISTRATIONS, PROMPT_TOKENS, COMPLETION_TOKENS, OUT_OF_MEMORY] {
        counter!(counter).increment(0);
    }
}

pub(crate) fn registered() {
    counter!(REGISTRATIONS).increment(1);
}

pub(crate) fn fetched(took: Duration) {
    histogram!(POLICY_FETCH).record(took);
}

pub(crate) fn loaded(took: Duration) {
    histogram!(POLICY_LOAD).record(took);
}

/// Records a batch that did not fit into the device's memory.
pub(crate) fn out_of_memory() {
    counter!(OUT_OF_MEMORY).increment(1);
}

/// Records a submitted lease.
pub(crate) fn submitted(answer: &v1::SubmitResponse) {
    counter!(LEASES, "outcome" => "submitted").increment(1);
    counter!(RESULTS, "outcome" => "accepted").increment(answer.accepted.into());
    counter!(RESULTS, "outcome" => "repeated").increment(answer.repeated_results.into());
    counter!(RESULTS, "outcome" => "refused").increment(answer.refused.into());
}

/// Records a lease that was assigned to another worker before it was sampled.
pub(crate) fn lost() {
    counter!(LEASES, "outcome" => "lost").increment(1);
}

/// Records a lease that was returned during a shutdown.
pub(crate) fn returned() {
    counter!(LEASES, "outcome" => "returned").increment(1);
}

/// Measures the device's working and idle time.
#[derive(Debug)]
pub(crate) struct DeviceTime {
    since: Instant,
    idle_seconds: f64,
    busy_seconds: f64,
    flops: f64,
}

impl DeviceTime {
    /// Starts an idle period.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), idle_seconds: 0.0, busy_seconds: 0.0, flops: 0.0 }
    }

    /// Records a sampled lease.
    pub(crate) fn sampled(&mut self, outcome: &Outcome) {
        let Cost { prefill, decode, prompt_tokens, completion_tokens, flops } = outcome.cost;
        let busy = outcome.cost.sampling();
        let idle = self.since.elapsed().saturating_sub(busy);
        self.since = Instant::now();
        self.idle_seconds = MEMORY * self.idle_seconds + idle.as_secs_f64();
        self.busy_seconds = MEMORY * self.busy_seconds + busy.as_secs_f64();
        self.flops = MEMORY * self.flops + flops as f64;
        gauge!(FLOPS).set(self.flops / self.busy_seconds.max(f64::MIN_POSITIVE));

        counter!(PROMPT_TOKENS).increment(prompt_tokens);
        counter!(COMPLETION_TOKENS).increment(completion_tokens);
        histogram!(SAMPLING).record(busy);
        histogram!(PREFILL).record(prefill);
        histogram!(DECODE).record(decode);
        histogram!(IDLE).record(idle);
        gauge!(IDLE_RATIO)
            .set(self.idle_seconds / (self.idle_seconds + self.busy_seconds).max(f64::MIN_POSITIVE));
        gauge!(POLICY_VERSION).set(outcome.source.version.0 as f64);
    }
}
