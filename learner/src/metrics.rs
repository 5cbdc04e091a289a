//! The Prometheus metrics of a learner.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::batch::Share;

const TOKENS: &str = "podium_learner_tokens_total";
const OUT_OF_MEMORY: &str = "podium_learner_out_of_memory_total";
const SET_ASIDE: &str = "podium_learner_groups_set_aside_total";
const REJOINS: &str = "podium_learner_rejoins_total";
const FLOPS: &str = "podium_learner_model_flops_per_second";

/// Step metrics that are exported as gauges: name, gauge, help.
const GAUGES: [(&str, &str, &str); 7] = [
    ("loss", "podium_learner_loss", "Loss of the last step"),
    ("kl", "podium_learner_kl_nats", "Mean KL estimate of the last step, where beta is not 0"),
    ("entropy", "podium_learner_entropy_nats", "Mean entropy of the last step's token distributions"),
    ("grad_norm", "podium_learner_grad_norm", "Norm of the last step's gradient before clipping"),
    (
        "sampling/sampling_logp_difference/mean",
        "podium_learner_logprob_gap_mean_nats",
        "Mean distance between recomputed and behaviour log-probabilities in the last step",
    ),
    (
        "sampling/sampling_logp_difference/max",
        "podium_learner_logprob_gap_max_nats",
        "Largest distance between recomputed and behaviour log-probabilities in the last step",
    ),
    ("learning_rate", "podium_learner_learning_rate", "Step size of the last step"),
];

/// Declares every metric. Call it once, after installing the recorder.
pub fn describe() {
    for (_, name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    describe_gauge!("podium_learner_step", "Number of applied steps");
    describe_histogram!("podium_learner_step_seconds", "Time from a step's groups to its new weights");
    describe_histogram!("podium_learner_wait_seconds", "Time waiting for a step's groups");
    describe_histogram!("podium_learner_publish_seconds", "Time from new weights to their publication");
    describe_counter!(TOKENS, "Completion tokens trained on by this rank");
    describe_gauge!(
        FLOPS,
        "Floating point operations of the model per second of the last step of this rank; without recomputation"
    );
    describe_counter!(OUT_OF_MEMORY, "Reductions of the micro-batch after exhausted device memory");
    describe_gauge!(
        "podium_learner_groups_per_micro_batch",
        "Groups per micro-batch after the last reduction"
    );
    describe_counter!(SET_ASIDE, "Groups of this rank that were unusable and were sampled again");
    describe_counter!(REJOINS, "Rendezvous of this rank after the first");
    // A counter must exist before its first increase to be visible in rates.
    for counter in [OUT_OF_MEMORY, REJOINS, SET_ASIDE, TOKENS] {
        counter!(counter).increment(0);
    }
}

/// Records a step that was taken.
pub(crate) fn stepped(share: &Share, metrics: &BTreeMap<String, f64>) {
    for (key, name, _) in GAUGES {
        if let Some(value) = metrics.get(key) {
            gauge!(name).set(*value);
        }
    }
    gauge!("podium_learner_step").set((share.step.0 + 1) as f64);
    if let Some(seconds) = metrics.get("learner_seconds") {
        histogram!("podium_learner_step_seconds").record(*seconds);
    }
    let completions = share.groups.iter().flat_map(|group| &group.completions);
    counter!(TOKENS).increment(completions.map(|completion| completion.len() as u64).sum());
}

/// Records the floating point operations of the model in a step that took this long.
pub(crate) fn computed(flops: u64, took: Duration) {
    gauge!(FLOPS).set(flops as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE));
}

/// Records the time waiting for groups.
pub(crate) fn waited(seconds: f64) {
    histogram!("podium_learner_wait_seconds").record(seconds);
}

/// Records the duration of a publication.
pub(crate) fn published(seconds: f64) {
    histogram!("podium_learner_publish_seconds").record(seconds);
}

/// Records exhausted memory and the new number of groups per micro-batch.
pub(crate) fn out_of_memory(groups: usize) {
    counter!(OUT_OF_MEMORY).increment(1);
    gauge!("podium_learner_groups_per_micro_batch").set(groups as f64);
}

/// Records unusable groups.
pub(crate) fn set_aside(groups: usize) {
    counter!(SET_ASIDE).increment(groups as u64);
}

/// Records a new rendezvous.
pub(crate) fn rejoined() {
    counter!(REJOINS).increment(1);
}
