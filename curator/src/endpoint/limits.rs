//! Rate limits: requests and tokens per minute, and pauses requested by the endpoint.
//!
//! Requests are spread evenly instead of being sent in bursts, since endpoints count a minute in different ways. The
//! caller passes the time in milliseconds; the module reads no clock.

/// Milliseconds per minute.
const MINUTE_MS: f64 = 60_000.0;

/// Rate limits; 0 is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rates {
    /// Requests per minute.
    pub(crate) requests_per_min: u64,
    /// Input and output tokens per minute.
    pub(crate) tokens_per_min: u64,
}

/// State of the rate limits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limits {
    rates: Rates,
    /// Time at which the granted requests are used up at the permitted rate.
    requests_until_ms: f64,
    /// Time at which the granted tokens are used up at the permitted rate.
    tokens_until_ms: f64,
    paused_until_ms: f64,
}

impl Limits {
    pub(crate) const fn new(rates: Rates) -> Self {
        Self { rates, requests_until_ms: 0.0, tokens_until_ms: 0.0, paused_until_ms: 0.0 }
    }

    /// Grants a request of about `tokens` tokens and returns the time at which it may be sent.
    pub(crate) fn grant(&mut self, now_ms: u64, tokens: u64) -> u64 {
        let now = now_ms as f64;
        let at = now.max(self.requests_until_ms).max(self.tokens_until_ms).max(self.paused_until_ms);
        if self.rates.requests_per_min > 0 {
            // Whole milliseconds, rounded up, so that no minute contains one request too many.
            self.requests_until_ms = at.ceil() + (MINUTE_MS / self.rates.requests_per_min as f64).ceil();
        }
        if self.rates.tokens_per_min > 0 {
            self.tokens_until_ms = at + self.span_of(tokens);
        }
        at.ceil() as u64
    }

    /// Corrects the token count of a request from `expected` to `actual`.
    pub(crate) fn correct(&mut self, expected: u64, actual: u64) {
        if self.rates.tokens_per_min > 0 {
            self.tokens_until_ms += self.span_of(actual) - self.span_of(expected);
        }
    }

    /// Blocks all requests until `until_ms`.
    pub(crate) const fn pause(&mut self, until_ms: u64) {
        self.paused_until_ms = self.paused_until_ms.max(until_ms as f64);
    }

    /// Returns the new time of a request that was granted for `at_ms` if a later pause covers that time; the current
    /// time is `now_ms`.
    ///
    /// The request is queued behind all granted ones, so that not all are sent at the end of the pause. Its unused
    /// grant is not returned, since it lies in the pause.
    pub(crate) fn grant_after_pause(&mut self, at_ms: u64, now_ms: u64, tokens: u64) -> Option<u64> {
        (self.paused_until_ms > at_ms as f64).then(|| self.grant(now_ms, tokens))
    }

    fn span_of(&self, tokens: u64) -> f64 {
        tokens as f64 * MINUTE_MS / self.rates.tokens_per_min as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_limits_requests_are_sent_immediately() {
        let mut limits = Limits::new(Rates::default());
        assert!((0..100).all(|_| limits.grant(5, 1_000_000) == 5));
    }

    #[test]
    fn requests_are_spread_over_the_minute() {
        let mut limits = Limits::new(Rates { requests_per_min: 120, tokens_per_min: 0 });
        assert_eq!([0, 1, 2].map(|_| limits.grant(0, 9)), [0, 500, 1000]);
        assert_eq!(limits.grant(60_000, 9), 60_000, "unused capacity is not accumulated");
    }

    #[test]
    fn token_counts_are_corrected() {
        let mut limits = Limits::new(Rates { requests_per_min: 0, tokens_per_min: 600 });
        assert_eq!(limits.grant(0, 100), 0);
        assert_eq!(limits.grant(0, 100), 10_000);
        limits.correct(100, 50);
        assert_eq!(limits.grant(0, 100), 15_000);
    }

    #[test]
    fn pauses_block_all_requests() {
        let mut limits = Limits::new(Rates::default());
        let at = limits.grant(10, 1);
        assert_eq!(limits.grant_after_pause(at, at, 1), None);
        limits.pause(500);
        limits.pause(300);
        assert_eq!(limits.grant_after_pause(at, at, 1), Some(500));
        assert_eq!(limits.grant(20, 1), 500);
    }

    #[test]
    fn tokens_are_spread_after_a_pause_as_well() {
        let mut limits = Limits::new(Rates { requests_per_min: 0, tokens_per_min: 600 });
        let granted = [0, 1, 2].map(|_| limits.grant(0, 100));
        assert_eq!(granted, [0, 10_000, 20_000]);
        limits.pause(60_000);
        assert_eq!(
            granted.map(|at| limits.grant_after_pause(at, at, 100)),
            [60_000, 70_000, 80_000].map(Some)
        );
    }

    proptest! {
        #[test]
        fn no_minute_holds_more_than_its_requests(
            rate in 1_u64..200,
            steps in prop::collection::vec((0_u64..2_000, prop::option::weighted(0.1, 1_u64..100_000)), 1..200),
        ) {
            let mut limits = Limits::new(Rates { requests_per_min: rate, tokens_per_min: 0 });
            let (mut now, mut waiting, mut times) = (0, BTreeSet::new(), Vec::new());
            // Requests that are due before `end` are sent, unless a pause delays them.
            let go = |limits: &mut Limits, waiting: &mut BTreeSet<u64>, times: &mut Vec<u64>, end: u64| {
                while let Some(at) = waiting.first().copied().filter(|&at| at <= end) {
                    waiting.remove(&at);
                    match limits.grant_after_pause(at, at, 0) {
                        Some(later) => prop_assert!(later > at && waiting.insert(later), "two at {later}"),
                        None => times.push(at),
                    }
                }
                Ok(())
            };
            for (gap, pause) in steps {
                now += gap;
                go(&mut limits, &mut waiting, &mut times, now)?;
                let at = limits.grant(now, 0);
                prop_assert!(waiting.insert(at), "two at {at}");
                if let Some(length) = pause {
                    limits.pause(now + length);
                }
            }
            go(&mut limits, &mut waiting, &mut times, u64::MAX)?;
            for (index, start) in times.iter().enumerate() {
                let within = times[index..].iter().take_while(|&&time| time < start + 60_000).count() as u64;
                prop_assert!(within <= rate, "{within} requests from {start} on");
            }
        }
    }
}
