//! Groups that cannot be trained on.

use podium_grpo::GroupId;

/// A group that cannot be trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Position in the step's batch.
    pub index: u32,
    /// The attempt at that position.
    pub attempt: u32,
    /// The cause, as text for users.
    pub cause: String,
}

impl Unusable {
    /// Creates an unusable group with a cause.
    pub fn new(id: GroupId, cause: impl Into<String>) -> Self {
        Self { index: id.index, attempt: id.attempt, cause: cause.into() }
    }
}

/// The first of the causes, for a message.
pub(super) fn first_cause(groups: &[Unusable]) -> String {
    groups.first().map(|group| format!("; group {}: {}", group.index, group.cause)).unwrap_or_default()
}
