//! Users of a data set.

use crate::ids::{ItemId, UserId};

/// A user's interactions, oldest first. There are at least two: a non-empty history and the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// All items of the interactions; the last one is the target.
    pub items: Vec<ItemId>,
}

impl User {
    /// Returns the item to predict.
    pub fn target(&self) -> ItemId {
        *self.items.last().expect("a user has at least two items")
    }

    /// Returns the last `at_most` items before the target, oldest first.
    pub fn history(&self, at_most: usize) -> &[ItemId] {
        self.history_of(self.items.len() - 1, at_most)
    }

    /// Returns the last `at_most` items before the one at `position`, oldest first.
    pub fn history_of(&self, position: usize, at_most: usize) -> &[ItemId] {
        let before = &self.items[..position];
        &before[before.len().saturating_sub(at_most)..]
    }
}
