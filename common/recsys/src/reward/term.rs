//! Terms of a reward, as the run file lists them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One term of the reward: `[[reward.terms]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Name of the term.
    pub name: Name,
    /// For `hit`, `ndcg` and `discounted_hit`: lowest rank at which the target counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
    /// For `discounted_hit`: reduction of a hit on the most popular item, 0 to 1. Without it: one half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount: Option<f64>,
    /// For `rank_penalty`: number of most popular candidates besides the target that are hard negatives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negatives: Option<usize>,
    /// For `length`: number of characters without penalty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Factor of its value.
    #[serde(default = "one")]
    pub weight: f64,
}

const fn one() -> f64 {
    1.0
}

impl Term {
    /// Creates the term of that name with weight 1 and no other keys.
    pub const fn new(name: Name) -> Self {
        Self { name, k: None, discount: None, negatives: None, limit: None, weight: 1.0 }
    }
}

/// Names of terms. docs/guides/rewards.md has their formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// 1 for a well-formed answer.
    Form,
    /// 1 for a well-formed answer that ranks the target first, or above its position in the prompt.
    FormIfImproved,
    /// 1 if the target is among the first k.
    Hit,
    /// 1 / log₂(rank + 1) if the target is among the first k.
    Ndcg,
    /// 1 / rank if the target is listed.
    ReciprocalRank,
    /// A hit whose value decreases with the popularity of the target.
    DiscountedHit,
    /// Minus the weight of the ranks above the target that are occupied by hard negatives.
    RankPenalty,
    /// Mean over the list of each item's value by counterfactual swap.
    CounterfactualSwap,
    /// Fraction of the listed items with the correct title.
    Titles,
    /// 0 up to a number of characters, from there decreasing to −1 at twice as many.
    Length,
    /// The reward of the released code of `MLLMRec-R1`, for reproduction; it is not gated and fails the check.
    Paper,
}
