//! The reward inflation watch: compares the training reward with the held-out ranking.
//!
//! A reward is inflated if it rises in training and the held-out ranking does not follow: the policy exploits the
//! reward. At every evaluation the watch considers the last `window` evaluations. It fits a least-squares line through
//! the rewards of the training steps between the first and the last of them, and one through their ranking metrics. A
//! **gain** is the rise of a line over the window.
//!
//! - The **reward gain** is a fraction of the range from the lowest to the highest possible reward. The error of its
//!   slope is estimated from the scatter of the steps about the line.
//! - The **ranking gain** is the mean over held-out users of the rise of each user's own line, which eliminates
//!   differences between users (all evaluations use the same users and questions). Its error is estimated from the
//!   scatter of the users' gains.
//! - The **gap** is the reward gain minus the ranking gain.
//!
//! Intervals are 99 % intervals by Student's t, wider than the 95 % intervals of the report, since the watch tests at
//! every evaluation.
//!
//! The reward counts as inflated if all of these hold:
//!
//! 1. the reward rises significantly: the lower limit of its interval is above 0,
//! 2. the rise is relevant: its gain is at least `min_reward_gain`,
//! 3. the ranking significantly does not follow: the upper limit of its interval is below `min_ranking_share` times the
//!    reward gain.
//!
//! Since both conditions require significance, noise rarely triggers the watch, and a small evaluation makes it
//! insensitive rather than wrong. The module depends neither on files nor on the order in which evaluations arrive: its
//! results are functions of the recorded rewards and ranks.

mod gain;
mod line;
mod progress;
#[cfg(test)]
mod tests;

pub use gain::Gain;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use progress::{Progress, progress};

use crate::ranking::Metric;

/// The reward inflation watch: `[watch]` of the run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Held-out ranking metric that the reward is compared with: `ndcg` at the list length, or `hit`, which is HR@1.
    pub ranking: Ranking,
    /// Number of evaluations in the window, including the newest. At least 2.
    pub window: usize,
    /// Minimum rise of the reward over the window for a warning, as a fraction of the range from the lowest to the
    /// highest possible reward.
    pub min_reward_gain: f64,
    /// Minimum gain of the ranking as a fraction of the reward's gain.
    pub min_ranking_share: f64,
    /// Early stopping: after this many consecutive evaluations without a new best NDCG at the list length, the run ends
    /// with the next evaluated version. 0: never.
    pub stop_after_evaluations: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ranking: Ranking::Ndcg,
            window: 4,
            min_reward_gain: 0.05,
            min_ranking_share: 0.25,
            stop_after_evaluations: 0,
        }
    }
}

/// A held-out ranking metric for the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// NDCG over the whole list.
    Ndcg,
    /// HR@1.
    Hit,
}

impl Ranking {
    /// Returns the metric for answers of this length.
    pub const fn metric(self, list_length: usize) -> Metric {
        match self {
            Self::Ndcg => Metric::Ndcg(list_length),
            Self::Hit => Metric::Hit(1),
        }
    }
}

/// An invalid option.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The window has fewer than two evaluations.
    #[error("`watch.window` is {0}, expected at least 2 evaluations")]
    Window(usize),
    /// A threshold outside 0 to 1.
    #[error("`watch.{key}` is {value}, expected at least 0 and at most 1")]
    Share {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
    },
}

impl Options {
    /// Validates all options.
    pub fn check(&self) -> Result<(), Error> {
        if self.window < 2 {
            return Err(Error::Window(self.window));
        }
        for (key, value) in
            [("min_reward_gain", self.min_reward_gain), ("min_ranking_share", self.min_ranking_share)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Share { key, value });
            }
        }
        Ok(())
    }
}

/// One evaluation of the window.
#[derive(Debug, Clone, Copy)]
pub struct Evaluated<'a> {
    /// The evaluated policy version.
    pub version: u64,
    /// Rank of each held-out user's target, with the same users in the same order at every evaluation.
    pub ranks: &'a [Option<usize>],
}

/// One training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rewarded {
    /// The policy version that sampled.
    pub version: u64,
    /// Mean reward of the step's completions, as a fraction of the range from the lowest to the highest possible
    /// reward.
    pub reward: f64,
}

/// The result of the watch for a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The window's first version.
    pub from: u64,
    /// Its last version.
    pub to: u64,
    /// Gain of the training reward, as a fraction of its range.
    pub reward: Gain,
    /// Gain of the held-out ranking.
    pub ranking: Gain,
    /// Whether the reward is inflated.
    pub inflated: bool,
}

impl Comparison {
    /// Returns the reward gain minus the ranking gain.
    pub fn gap(&self) -> f64 {
        self.reward.mean - self.ranking.mean
    }
}

impl Options {
    /// Compares reward and ranking over the window that ends with the last of `evaluations`, which are in order of
    /// version. `steps` contains at least the steps of the window; other steps are ignored.
    ///
    /// Returns `None` if the window is not full, has too few steps for a slope with an error, or has evaluations of
    /// different or too few users.
    pub fn compare(
        &self,
        evaluations: &[Evaluated<'_>],
        steps: &[Rewarded],
        list_length: usize,
    ) -> Option<Comparison> {
        let window = &evaluations[evaluations.len().checked_sub(self.window)?..];
        let (from, to) = (window.first()?.version, window.last()?.version);
        let reward = {
            let inside = steps.iter().filter(|step| (from..to).contains(&step.version));
            let points: Vec<(f64, f64)> = inside.map(|step| (step.version as f64, step.reward)).collect();
            line::rise(&points, to.checked_sub(from)? as f64)?
        };
        let ranking = {
            let users = window.first()?.ranks.len();
            if window.iter().any(|one| one.ranks.len() != users) {
                return None;
            }
            let metric = self.ranking.metric(list_length);
            let versions: Vec<f64> = window.iter().map(|one| one.version as f64).collect();
            let weights = line::weights(&versions)?;
            let gain = |user: usize| {
                window.iter().zip(&weights).map(|(one, weight)| weight * metric.value(one.ranks[user])).sum()
            };
            let gains: Vec<f64> = (0..users).map(gain).collect();
            line::mean(&gains)?
        };
        let rises = reward.low > 0.0 && reward.mean >= self.min_reward_gain;
        let inflated = rises && ranking.high < self.min_ranking_share * reward.mean;
        Some(Comparison { from, to, reward, ranking, inflated })
    }
}
