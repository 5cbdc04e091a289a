//! Metrics of external rewards.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const ATTEMPTS: &str = "podium_coordinator_reward_requests_total";
const SECONDS: &str = "podium_coordinator_reward_request_seconds";
const WAITING: &str = "podium_coordinator_reward_requests_waiting";

/// Declares the metrics.
pub(super) fn describe() {
    describe_counter!(
        ATTEMPTS,
        "Attempts at requests of external rewards, by outcome: answered, recorded, timeout, connection, status, answer, \
         program."
    );
    describe_histogram!(SECONDS, Unit::Seconds, "Time of an attempt at a request of an external reward.");
    describe_gauge!(WAITING, "Requests of external rewards that have used up their retries.");
}

/// Records an attempt at a request of an external reward.
pub fn attempt(name: &str, outcome: &'static str, took: Duration) {
    counter!(ATTEMPTS, "reward" => name.to_owned(), "outcome" => outcome).increment(1);
    histogram!(SECONDS, "reward" => name.to_owned()).record(took);
}

/// Counts a request of an external reward whose answer is in the store.
pub fn recorded(name: &str) {
    counter!(ATTEMPTS, "reward" => name.to_owned(), "outcome" => "recorded").increment(1);
}

/// Sets the number of requests that have used up their retries.
pub fn waiting(name: &str, count: usize) {
    gauge!(WAITING, "reward" => name.to_owned()).set(count as f64);
}
