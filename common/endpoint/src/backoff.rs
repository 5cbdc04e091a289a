//! Exponential backoff with jitter that is keyed by the request: requests that failed together are retried at different
//! times, and the waits of a repeated run are the same.

use podium_grpo::rng::Stream;

/// Maximum wait, unless the endpoint requests a longer one.
const LONGEST_MS: u64 = 60_000;

/// Returns the wait after the `attempt`-th failure, from 0: between half and all of `base_ms * 2^attempt`.
pub fn wait_ms(base_ms: u64, attempt: u32, key: u64) -> u64 {
    let factor = 1_u64.checked_shl(attempt).unwrap_or(u64::MAX);
    let longest = base_ms.saturating_mul(factor).min(LONGEST_MS);
    let jitter = Stream::new(key, "endpoint/backoff", &[u64::from(attempt)]).uniform();
    longest / 2 + (jitter * longest.div_ceil(2) as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_differ_by_request() {
        for (attempt, most) in [(0, 1_000), (1, 2_000), (5, 32_000), (6, 60_000), (63, 60_000), (200, 60_000)]
        {
            for key in 0..50 {
                let wait = wait_ms(1_000, attempt, key);
                assert!((most / 2..=most).contains(&wait), "attempt {attempt}: {wait}");
                assert_eq!(wait, wait_ms(1_000, attempt, key));
            }
        }
        assert_ne!(wait_ms(1_000, 3, 1), wait_ms(1_000, 3, 2));
        assert_eq!(wait_ms(0, 3, 1), 0);
    }
}
