//! Restart policy of dead services. Pure: times in, verdicts out.

use std::collections::VecDeque;
use std::time::Duration;

/// Limits of restarts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Maximum number of restarts within `window`.
    pub(crate) restarts: usize,
    pub(crate) window: Duration,
    /// Pause before the first restart; it doubles with every death within `window`.
    pub(crate) pause: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { restarts: 5, window: Duration::from_secs(60), pause: Duration::from_millis(100) }
    }
}

/// Reaction to a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Restart it after this pause.
    Restart { after: Duration },
    /// Do not restart it after this many deaths within the window.
    GiveUp { deaths: usize },
}

/// The deaths of one service.
#[derive(Debug)]
pub(crate) struct History {
    policy: Policy,
    deaths: VecDeque<Duration>,
}

impl History {
    pub(crate) const fn new(policy: Policy) -> Self {
        Self { policy, deaths: VecDeque::new() }
    }

    /// Records a death at time `now`, measured from any fixed time.
    pub(crate) fn died(&mut self, now: Duration) -> Verdict {
        self.deaths.push_back(now);
        while self.deaths.front().is_some_and(|&death| now.saturating_sub(death) > self.policy.window) {
            self.deaths.pop_front();
        }
        let deaths = self.deaths.len();
        if deaths > self.policy.restarts {
            return Verdict::GiveUp { deaths };
        }
        Verdict::Restart { after: self.policy.pause * 2_u32.pow(deaths as u32 - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn history() -> History {
        History::new(Policy { restarts: 2, window: 10 * SECOND, pause: SECOND })
    }

    #[test]
    fn pauses_grow_until_restarts_end() {
        let mut history = history();
        assert_eq!(history.died(SECOND), Verdict::Restart { after: SECOND });
        assert_eq!(history.died(2 * SECOND), Verdict::Restart { after: 2 * SECOND });
        assert_eq!(history.died(3 * SECOND), Verdict::GiveUp { deaths: 3 });
    }

    #[test]
    fn old_deaths_do_not_count() {
        let mut history = history();
        for hour in 1..100 {
            assert_eq!(history.died(3600 * hour * SECOND), Verdict::Restart { after: SECOND });
        }
    }
}
