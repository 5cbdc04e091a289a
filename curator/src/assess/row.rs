//! One row of the file of scores.

use podium_recsys::UserId;
use serde::{Deserialize, Serialize};

use super::confidence::Scores;

/// The scores of one reasoning text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The user.
    pub(crate) user_id: UserId,
    /// The scores.
    #[serde(flatten)]
    pub(crate) score: Scores,
    /// The rank of the target in each of the judge's answers; null if it was not listed.
    pub(super) ranks: Vec<Option<usize>>,
    /// The reasoning text that was judged.
    pub(crate) reasoning: String,
}
