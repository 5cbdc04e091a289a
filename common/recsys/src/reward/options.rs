//! Options of the reward.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::external::External;
use super::rank::ItemCredit;
use super::term::{Name, Term};

/// The reward of completions: `[reward]` of the run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The terms whose weighted sum is the reward: see docs/guides/rewards.md.
    pub terms: Vec<Term>,
    /// Terms whose values a program of the user computes: see docs/guides/external-rewards.md.
    pub external: Vec<External>,
    /// Handling of a reward that violates the ordering rules.
    pub check: Check,
    /// Reward of each listed item if `grpo.credit` is `rank`.
    pub rank_credit: ItemCredit,
    /// Amount by which the reward of a defective item is below the minimum of a well-formed answer's items: see
    /// docs/guides/rewards.md. Above 0.
    pub item_penalty: f64,
}

/// Handling of a reward that violates the ordering rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The run is rejected.
    #[default]
    Refuse,
    /// The run continues with a warning, for example to reproduce a published reward.
    Warn,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            terms: vec![
                Term { weight: 0.1, ..Term::new(Name::Form) },
                Term { k: Some(1), weight: 0.5, ..Term::new(Name::Hit) },
                Term { k: Some(3), weight: 0.5, ..Term::new(Name::Ndcg) },
            ],
            external: Vec::new(),
            check: Check::default(),
            rank_credit: ItemCredit::default(),
            item_penalty: 0.5,
        }
    }
}
