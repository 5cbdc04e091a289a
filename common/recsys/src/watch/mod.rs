//! The reward inflation watch: does the held-out ranking follow the reward?
//!
//! A reward is inflated where training makes it rise and the ranking that it stands for does not follow: the policy has
//! found something else that pays. At every evaluation the last `window` evaluations are looked at. Through the reward
//! of every training step between the first and the last of them, and through the ranking metric of each of them, a
//! straight line is laid by least squares; a **gain** is how much its line rises over the window.
//!
//! - The **reward gain** is in shares of the range from the least to the most that can be
//!   earned. The error of its slope comes from how the steps
//!   scatter about the line.
//! - The **ranking gain** is the mean over held-out users of each one's own line, so that what makes users differ falls
//!   out (the evaluations ask the same users the same questions). Its error comes from how the users' gains scatter.
//! - The **gap** is the reward gain less the ranking gain.
//!
//! Intervals are of 99 %, by Student's t: wider than those of the tables, since the watch looks at every evaluation.
//!
//! The reward counts as inflated while all of these hold:
//!
//! 1. the reward rises for certain: the lower end of its interval is above 0,
//! 2. by enough to matter: its gain is at least `min_reward_gain`,
//! 3. and the ranking does not follow for certain: the upper end of its interval is below `min_ranking_share` times the
//!    reward gain.
//!
//! Since both sides have to be certain, noise alone hardly ever trips the watch, and a small evaluation makes it silent
//! rather than wrong. Nothing here knows of files or of the order in which evaluations arrive: every figure is a
//! function of the recorded rewards and ranks.

mod line;
mod progress;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use progress::{Progress, progress};

use crate::ranking::Metric;

/// What is compared and when it is worth a warning: `[watch]` of the run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The held-out ranking that the reward is compared with: `ndcg` at the list length, or `hit`, which is HR@1.
    pub ranking: Ranking,
    /// Evaluations that are looked at together, the newest included. At least 2.
    pub window: usize,
    /// A reward that rises by less over the window, as a share of the range from the least to the most that can be
    /// earned, is no reason to warn.
    pub min_reward_gain: f64,
    /// The share of the reward's gain that the ranking has to gain.
    pub min_ranking_share: f64,
    /// After so many evaluations in a row without a new best one, by NDCG at the list length, the run ends with the
    /// version that is evaluated next. 0: never.
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

/// A held-out ranking metric that the watch may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// NDCG over the whole list.
    Ndcg,
    /// HR@1.
    Hit,
}

impl Ranking {
    /// The metric where answers list so many items.
    pub const fn metric(self, list_length: usize) -> Metric {
        match self {
            Self::Ndcg => Metric::Ndcg(list_length),
            Self::Hit => Metric::Hit(1),
        }
    }
}

/// Options that make no sense.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One evaluation has no slope.
    #[error("`watch.window` is {0}, expected at least 2 evaluations")]
    Window(usize),
    /// A threshold that is no share.
    #[error("`watch.{key}` is {value}, expected at least 0 and at most 1")]
    Share {
        /// Which.
        key: &'static str,
        /// What it is.
        value: f64,
    },
}

impl Options {
    /// Checks every key.
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
    /// The policy version that answered.
    pub version: u64,
    /// Where each held-out user's target was ranked, the same users in the same order at every evaluation.
    pub ranks: &'a [Option<usize>],
}

/// One training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rewarded {
    /// The policy version that was sampled from.
    pub version: u64,
    /// Mean reward of the step's completions, in units of the range from the least to the most that can be earned.
    pub reward: f64,
}

/// How much a line rises over the window, with its 99 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// The rise.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// What the watch says of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The window's first version.
    pub from: u64,
    /// Its last version.
    pub to: u64,
    /// Of the training reward, in shares of its range.
    pub reward: Gain,
    /// Of the held-out ranking.
    pub ranking: Gain,
    /// Whether the reward is inflated.
    pub inflated: bool,
}

impl Comparison {
    /// The reward's gain less the ranking's.
    pub fn gap(&self) -> f64 {
        self.reward.mean - self.ranking.mean
    }
}

impl Options {
    /// Compares reward and ranking over the window that ends with the last of `evaluations`, which are in order of
    /// version. `steps` holds at least the steps of the window; others are left out.
    ///
    /// `None` where the window is not full yet, where there are too few steps in it for a slope with an error, or where
    /// the evaluations are of different users, or of too few.
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
