//! Counts and latencies of a load test. Nothing is counted before the measurement and after it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A number of events.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The events of all simulated peers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: AtomicBool,
    lease: Mutex<Vec<Duration>>,
    submit: Mutex<Vec<Duration>>,
    /// Groups of training steps that were stored.
    pub(super) groups: Count,
    /// Results of training and evaluation whose slots were filled already.
    pub(super) repeated: Count,
    /// Results of training and evaluation that were refused.
    pub(super) refused: Count,
    /// Requests for a lease that found no work.
    pub(super) waits: Count,
    /// Leases that a heartbeat found to be lost, and registrations that the coordinator had forgotten.
    pub(super) lost: Count,
    /// Committed steps.
    pub(super) steps: Count,
}

impl Tally {
    pub(super) fn set_counting(&self, counts: bool) {
        self.counts.store(counts, Ordering::Relaxed);
    }

    pub(super) fn add(&self, count: &Count, number: u64) {
        if self.counts.load(Ordering::Relaxed) {
            count.0.fetch_add(number, Ordering::Relaxed);
        }
    }

    /// Adds the latency of a lease that was granted without a wait for work.
    pub(super) fn leased(&self, took: Duration) {
        self.record(&self.lease, took);
    }

    /// Adds the latency of a submission.
    pub(super) fn submitted(&self, took: Duration) {
        self.record(&self.submit, took);
    }

    fn record(&self, latencies: &Mutex<Vec<Duration>>, took: Duration) {
        if self.counts.load(Ordering::Relaxed) {
            latencies.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        }
    }

    /// Takes the latencies of leases and of submissions.
    pub(super) fn take_latencies(&self) -> [Latencies; 2] {
        [&self.lease, &self.submit].map(|latencies| {
            Latencies::of(std::mem::take(&mut *latencies.lock().unwrap_or_else(PoisonError::into_inner)))
        })
    }
}

/// Latencies of one kind of call, ascending.
#[derive(Debug)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        Self(latencies)
    }

    /// Returns the number of calls.
    pub(crate) const fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the smallest latency that at least this fraction of the calls did not exceed; zero without calls.
    pub(crate) fn quantile(&self, fraction: f64) -> Duration {
        let rank = (self.0.len() as f64 * fraction).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_latencies_of_calls() {
        let latencies = Latencies::of((1..=200).rev().map(Duration::from_millis).collect());
        let quantiles = [0.0, 0.5, 0.9, 0.99, 1.0].map(|fraction| latencies.quantile(fraction).as_millis());
        assert_eq!(quantiles, [1, 100, 180, 198, 200]);
        assert_eq!(Latencies::of(vec![]).quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn only_events_during_the_measurement_count() {
        let tally = Tally::default();
        let event = || {
            tally.submitted(Duration::from_millis(3));
            tally.add(&tally.groups, 2);
        };
        event();
        tally.set_counting(true);
        event();
        tally.set_counting(false);
        event();
        let [lease, submit] = tally.take_latencies();
        assert_eq!((lease.count(), submit.count(), tally.groups.get()), (0, 1, 2));
    }
}
