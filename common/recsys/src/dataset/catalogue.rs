//! The items that can be recommended.

use std::collections::BTreeMap;

use super::user::User;
use crate::ids::ItemId;

/// An item with its texts and popularity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its number in the data files.
    pub id: ItemId,
    /// Its title, never empty.
    pub title: String,
    /// Description of its picture, if there is one.
    pub caption: Option<String>,
    /// Number of interactions of training users.
    pub interactions: u64,
}

/// All items, in ascending order of id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalogue {
    items: Vec<Item>,
    positions: BTreeMap<ItemId, usize>,
}

impl Catalogue {
    /// Creates a catalogue of `items`; of several with the same id the last one is used.
    pub fn new(items: impl IntoIterator<Item = Item>) -> Self {
        let by_id: BTreeMap<ItemId, Item> = items.into_iter().map(|item| (item.id, item)).collect();
        let positions = by_id.keys().enumerate().map(|(position, &id)| (id, position)).collect();
        Self { items: by_id.into_values().collect(), positions }
    }

    /// Returns the items, in ascending order of id.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns the item `id`.
    pub fn get(&self, id: ItemId) -> Option<&Item> {
        self.position(id).map(|position| &self.items[position])
    }

    /// Whether the item `id` exists.
    pub fn contains(&self, id: ItemId) -> bool {
        self.positions.contains_key(&id)
    }

    /// Returns the index of `id` in [`Self::items`].
    pub fn position(&self, id: ItemId) -> Option<usize> {
        self.positions.get(&id).copied()
    }

    pub(super) fn get_mut(&mut self, id: ItemId) -> Option<&mut Item> {
        self.position(id).map(|position| &mut self.items[position])
    }

    /// Counts the interactions of the training users with every item.
    pub(crate) fn count_interactions(&mut self, train: &[User]) {
        for item in &mut self.items {
            item.interactions = 0;
        }
        for id in train.iter().flat_map(|user| &user.items) {
            if let Some(item) = self.get_mut(*id) {
                item.interactions += 1;
            }
        }
    }
}
