//! The `[grpo]` section of a run file, under TRL's field names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How advantages and the loss are computed. Field names and meanings are those of TRL's `GRPOConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How per-token losses are summed: see [`LossType`].
    pub loss_type: LossType,
    /// What centred rewards are divided by: see [`ScaleRewards`].
    pub scale_rewards: ScaleRewards,
    /// What a token is credited with: its completion's reward, or that of the listed item it belongs to.
    pub credit: Credit,
    /// Lower clipping bound of the probability ratio: it is kept above `1 - epsilon`.
    pub epsilon: f64,
    /// Upper clipping bound: the ratio is kept below `1 + epsilon_high`. Without it `epsilon` serves on both sides.
    pub epsilon_high: Option<f64>,
    /// Coefficient of the k3 estimate of the KL divergence from the reference policy; 0 leaves the reference out.
    pub beta: f64,
}

/// The sum over tokens that turns per-token losses into one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Mean over completions of each completion's mean over tokens (`DeepSeekMath`, arXiv 2402.03300).
    Grpo,
    /// Sum over all tokens of the step divided by their number (DAPO, arXiv 2503.14476).
    Dapo,
}

/// What a group's centred rewards are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// The standard deviation (n - 1) of the group's own rewards.
    Group,
    /// The standard deviation (n - 1) of all rewards of the step.
    Batch,
    /// Nothing.
    None,
}

/// What a token is credited with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// The advantage of its completion.
    Completion,
    /// Tokens of the k-th listed item: the advantage of that item among the group's k-th items (Rank-GRPO, arXiv
    /// 2510.20150); all others that of their completion.
    Rank,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            loss_type: LossType::Dapo,
            scale_rewards: ScaleRewards::Group,
            credit: Credit::Completion,
            epsilon: 0.2,
            epsilon_high: None,
            beta: 0.0,
        }
    }
}

impl Options {
    /// The bounds between which the ratio is not clipped.
    pub fn ratio_bounds(&self) -> (f64, f64) {
        (1.0 - self.epsilon, 1.0 + self.epsilon_high.unwrap_or(self.epsilon))
    }

    /// Checks every field's range.
    pub fn validate(&self) -> Result<(), Error> {
        let check = |field, value: f64, holds: bool, expected| {
            if holds { Ok(()) } else { Err(Error::OutOfRange { field, value, expected }) }
        };
        check("epsilon", self.epsilon, (0.0..=1.0).contains(&self.epsilon), "a number from 0 to 1")?;
        if let Some(high) = self.epsilon_high {
            check("epsilon_high", high, high.is_finite() && high >= 0.0, "a finite number of at least 0")?;
        }
        check("beta", self.beta, self.beta.is_finite() && self.beta >= 0.0, "a finite number of at least 0")
    }
}

/// A value that the objective is not defined for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A number outside its range.
    #[error("grpo.{field} is {value}: expected {expected}")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// What it was set to.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
}
