//! One row of the file of scores.

use podium_recsys::UserId;
use serde::{Deserialize, Serialize};

use super::confidence::Scores;

/// The scores of one reasoning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Whom it is about.
    pub(crate) user_id: UserId,
    /// The scores.
    #[serde(flatten)]
    pub(crate) score: Scores,
    /// Where the judge ranked the target, each time; null where it was not listed.
    pub(super) ranks: Vec<Option<usize>>,
    /// What was judged.
    pub(crate) reasoning: String,
}
