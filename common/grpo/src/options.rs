//! The `[grpo]` section of a run file, with TRL's field names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Computation of advantages and loss. Field names and meanings are those of TRL's `GRPOConfig`, except for `credit`
/// and `importance_sampling_correction`; docs/design/grpo.md has the formulas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Loss of a token and aggregation over tokens.
    pub loss_type: LossType,
    /// Divisor of a group's centred rewards.
    pub scale_rewards: ScaleRewards,
    /// How several reward terms are combined into one advantage.
    pub multi_objective_aggregation: Aggregation,
    /// Credit of a token: the reward of its completion or of the listed item that it belongs to.
    pub credit: Credit,
    /// Set of tokens that share one probability ratio. `rank` requires `credit = "rank"`.
    pub importance_sampling_level: Level,
    /// Optimizer passes over each step's groups.
    pub num_iterations: u32,
    /// Lower clipping bound: the probability ratio is clipped at `1 - epsilon`.
    pub epsilon: f64,
    /// Upper clipping bound: the ratio is clipped at `1 + epsilon_high`; for `cispo` the bound itself. Without it
    /// `epsilon` is used for both sides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// Bound of the ratio where clipping does not limit it, that is for negative advantages (two-sided clipping). Has
    /// an effect only above `1 + epsilon_high`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Steepness of `sapo`'s gate for positive advantages.
    pub sapo_temperature_pos: f64,
    /// Steepness of `sapo`'s gate for other advantages.
    pub sapo_temperature_neg: f64,
    /// Coefficient of the k3 estimate of the KL divergence from the reference policy; 0 disables the reference.
    pub beta: f64,
    /// Multiply the KL term by the probability ratio, which makes its gradient an unbiased estimate of the
    /// divergence's.
    pub use_bias_correction_kl: bool,
    /// Move the reference towards the policy every `ref_model_sync_steps` optimizer passes.
    pub sync_ref_model: bool,
    /// Fraction of the policy in the new reference; the rest is the previous reference.
    pub ref_model_mixup_alpha: f64,
    /// Optimizer passes between two updates of the reference.
    pub ref_model_sync_steps: u64,
    /// Exclude truncated completions from the loss; their rewards still count in the group's mean and deviation.
    pub mask_truncated_completions: bool,
    /// Divisor of `dr_grpo`, in tokens per completion. Without it: `rollout.max_new_tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_length: Option<u32>,
    /// Coefficient of the mean entropy of the token distributions, which is subtracted from the loss.
    pub entropy_coef: f64,
    /// Importance weights for completions of an older policy version: exp(old − behaviour), where old is the policy at
    /// the start of the step. Named as TRL's `vllm_importance_sampling_mode`.
    pub importance_sampling_correction: Correction,
    /// Upper bound of these weights.
    pub importance_sampling_cap: f64,
}

/// Loss of a token and aggregation over tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Clipped; mean over completions of each completion's mean over tokens (`DeepSeekMath`, arXiv 2402.03300).
    Grpo,
    /// Clipped; sum over the step's tokens divided by their number.
    Bnpo,
    /// Clipped; sum over the step's tokens divided by completions times their longest length (arXiv 2503.20783).
    DrGrpo,
    /// Clipped; sum over the step's tokens divided by their number (DAPO, arXiv 2503.14476).
    Dapo,
    /// Clipped; mean over completions of each completion's sum over tokens (arXiv 2602.05261).
    Luspo,
    /// Capped ratio without gradient as the weight of the log-probability (`MiniMax-M1`, arXiv 2506.13585); summed as
    /// `dapo`.
    Cispo,
    /// A smooth gate instead of clipping (arXiv 2511.20347); summed as `grpo`.
    Sapo,
}

/// Divisor of a group's centred rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// The standard deviation (n - 1) of the group's own rewards.
    Group,
    /// The standard deviation (n - 1) of all rewards of the step.
    Batch,
    /// No division.
    None,
}

/// How several reward terms are combined into one advantage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The weighted sum is centred and scaled.
    SumThenNormalize,
    /// Each term is centred and scaled within its group; their weighted sum is centred and scaled over the step.
    NormalizeThenSum,
}

/// Credit of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// The advantage of its completion.
    Completion,
    /// Tokens of the k-th listed item: the advantage of that item among the group's k-th items (Rank-GRPO, arXiv
    /// 2510.20150). Other tokens: the advantage of their completion.
    Rank,
}

/// Set of tokens that share one probability ratio, the geometric mean of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Each token has its own ratio.
    Token,
    /// All tokens of a completion share a ratio (GSPO, arXiv 2507.18071).
    Sequence,
    /// The tokens of each listed item share a ratio; other tokens have their own (Rank-GRPO, arXiv 2510.20150).
    Rank,
}

/// Importance weights for completions sampled by a policy other than that at the start of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// No weights: ratios are relative to the behaviour policy.
    None,
    /// One weight per token, at most the cap.
    TokenTruncate,
    /// One weight per token, 0 above the cap.
    TokenMask,
    /// One weight per completion, the product over its tokens, at most the cap.
    SequenceTruncate,
    /// One weight per completion, the product over its tokens, 0 above the cap.
    SequenceMask,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            loss_type: LossType::Dapo,
            scale_rewards: ScaleRewards::Group,
            multi_objective_aggregation: Aggregation::SumThenNormalize,
            credit: Credit::Completion,
            importance_sampling_level: Level::Token,
            num_iterations: 1,
            epsilon: 0.2,
            epsilon_high: None,
            delta: None,
            sapo_temperature_pos: 1.0,
            sapo_temperature_neg: 1.05,
            beta: 0.0,
            use_bias_correction_kl: true,
            sync_ref_model: false,
            ref_model_mixup_alpha: 0.6,
            ref_model_sync_steps: 512,
            mask_truncated_completions: false,
            max_completion_length: None,
            entropy_coef: 0.0,
            importance_sampling_correction: Correction::None,
            importance_sampling_cap: 3.0,
        }
    }
}

impl LossType {
    /// Whether the loss clips the ratio on either side, as PPO does.
    pub const fn clips(self) -> bool {
        match self {
            Self::Grpo | Self::Bnpo | Self::DrGrpo | Self::Dapo | Self::Luspo => true,
            Self::Cispo | Self::Sapo => false,
        }
    }
}

impl Correction {
    /// Whether a completion's tokens share one weight.
    pub const fn is_of_sequences(self) -> bool {
        matches!(self, Self::SequenceTruncate | Self::SequenceMask)
    }

    /// Whether a weight above the cap becomes 0 rather than the cap.
    pub const fn masks(self) -> bool {
        matches!(self, Self::TokenMask | Self::SequenceMask)
    }
}

impl Options {
    /// Returns the clipping bounds of the ratio.
    pub fn ratio_bounds(&self) -> (f64, f64) {
        (1.0 - self.epsilon, 1.0 + self.epsilon_high.unwrap_or(self.epsilon))
    }

    /// Returns the upper bound of `cispo`'s ratio.
    pub fn ratio_cap(&self) -> f64 {
        self.epsilon_high.unwrap_or(self.epsilon)
    }

    /// Whether old log-probabilities are those of the policy at the start of the step even if the behaviour's are
    /// known.
    pub fn renews_old(&self) -> bool {
        self.importance_sampling_correction != Correction::None
    }

    /// Checks the range of every field and the constraints between fields.
    pub fn validate(&self) -> Result<(), Error> {
        let check = |field, value: f64, holds: bool, expected| {
            if holds { Ok(()) } else { Err(Error::OutOfRange { field, value, expected }) }
        };
        let not_negative = |field, value: f64| {
            check(field, value, value.is_finite() && value >= 0.0, "a finite number of at least 0")
        };
        let positive = |field, value: f64| {
            check(field, value, value.is_finite() && value > 0.0, "a finite number above 0")
        };
        let from_one = |field, value: f64| check(field, value, value >= 1.0, "at least 1");
        from_one("num_iterations", f64::from(self.num_iterations))?;
        check("epsilon", self.epsilon, (0.0..=1.0).contains(&self.epsilon), "a number from 0 to 1")?;
        self.epsilon_high.map_or(Ok(()), |high| not_negative("epsilon_high", high))?;
        self.delta.map_or(Ok(()), |delta| positive("delta", delta))?;
        positive("sapo_temperature_pos", self.sapo_temperature_pos)?;
        positive("sapo_temperature_neg", self.sapo_temperature_neg)?;
        not_negative("beta", self.beta)?;
        let alpha = self.ref_model_mixup_alpha;
        check("ref_model_mixup_alpha", alpha, (0.0..=1.0).contains(&alpha), "a number from 0 to 1")?;
        from_one("ref_model_sync_steps", self.ref_model_sync_steps as f64)?;
        self.max_completion_length
            .map_or(Ok(()), |length| from_one("max_completion_length", f64::from(length)))?;
        check("entropy_coef", self.entropy_coef, self.entropy_coef.is_finite(), "a finite number")?;
        positive("importance_sampling_cap", self.importance_sampling_cap)?;
        if self.importance_sampling_level == Level::Rank && self.credit != Credit::Rank {
            let (field, needed) = ("importance_sampling_level = \"rank\"", "credit = \"rank\"");
            return Err(Error::Needs { field, needed, why: "tokens belong to items only then" });
        }
        if self.sync_ref_model && self.beta == 0.0 {
            let (field, needed) = ("sync_ref_model", "beta above 0");
            return Err(Error::Needs { field, needed, why: "there is no reference otherwise" });
        }
        Ok(())
    }
}

/// A value for which the objective is not defined.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A number outside its range.
    #[error("grpo.{field} is {value}: expected {expected}")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// The rejected value.
        value: f64,
        /// The permitted values.
        expected: &'static str,
    },
    /// A field that requires another one.
    #[error("grpo.{field} needs grpo.{needed}: {why}")]
    Needs {
        /// The field.
        field: &'static str,
        /// The required setting.
        needed: &'static str,
        /// Reason.
        why: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undefined_objectives_are_rejected_by_name() {
        Options::default().validate().unwrap();
        let refused = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.validate().unwrap_err().to_string()
        };
        assert!(refused(|o| o.num_iterations = 0).contains("num_iterations is 0: expected at least 1"));
        assert!(refused(|o| o.delta = Some(0.0)).contains("grpo.delta is 0"));
        assert!(refused(|o| o.epsilon_high = Some(f64::NAN)).contains("epsilon_high"));
        assert!(refused(|o| o.sapo_temperature_neg = 0.0).contains("sapo_temperature_neg"));
        assert!(refused(|o| o.ref_model_mixup_alpha = 1.5).contains("from 0 to 1"));
        assert!(refused(|o| o.importance_sampling_cap = f64::INFINITY).contains("importance_sampling_cap"));
        assert!(refused(|o| o.importance_sampling_level = Level::Rank).contains("credit = \"rank\""));
        assert!(refused(|o| o.sync_ref_model = true).contains("beta above 0"));
    }

    #[test]
    fn names_match_trl() {
        let text = r#"{"loss_type": "dr_grpo", "scale_rewards": "batch", "importance_sampling_level": "sequence",
            "multi_objective_aggregation": "normalize_then_sum", "importance_sampling_correction": "token_truncate"}"#;
        let options: Options = serde_json::from_str(text).unwrap();
        assert_eq!(options.loss_type, LossType::DrGrpo);
        assert_eq!(options.importance_sampling_correction, Correction::TokenTruncate);
        assert_eq!(options.multi_objective_aggregation, Aggregation::NormalizeThenSum);
    }
}
