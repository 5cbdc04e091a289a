//! The interactions of a data set, each once, with its part.

use std::collections::BTreeMap;

use podium_recsys::dataset::User;
use podium_recsys::{Dataset, ItemId, UserId};

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Train,
    Validation,
    Test,
}

impl Part {
    /// Returns the part's name in files.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// An interaction of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interaction {
    pub(super) item: ItemId,
    /// Position in the user's sequence, from 1.
    pub(super) position: u32,
    /// The first part whose row of the user contains the interaction.
    pub(super) part: Part,
    /// Whether it is the last interaction of a row, which is the row's target.
    pub(super) target: bool,
}

/// A user's interactions, oldest first.
#[derive(Debug)]
pub(super) struct Sequence<'a> {
    pub(super) user: UserId,
    /// The longest row.
    items: &'a [ItemId],
    /// The parts with a row of the user, and the lengths of the rows; each row is a prefix of the next.
    pub(super) rows: Vec<(Part, usize)>,
}

/// Returns the sequences of all users, in ascending order of id.
pub(super) fn sequences(data: &Dataset) -> Vec<Sequence<'_>> {
    let mut sequences: BTreeMap<UserId, Sequence<'_>> = BTreeMap::new();
    let parts: [(Part, &[User]); 3] =
        [(Part::Train, &data.train), (Part::Validation, &data.validation), (Part::Test, &data.test)];
    for (part, users) in parts {
        for user in users {
            let sequence = sequences.entry(user.id).or_insert_with(|| Sequence {
                user: user.id,
                items: &user.items,
                rows: Vec::new(),
            });
            sequence.items = &user.items;
            sequence.rows.push((part, user.items.len()));
        }
    }
    sequences.into_values().collect()
}

impl Sequence<'_> {
    /// Returns the interactions, oldest first.
    pub(super) fn interactions(&self) -> impl Iterator<Item = Interaction> + '_ {
        (1..).zip(self.items).map(|(position, &item)| {
            let length = position as usize;
            // The longest row contains all interactions.
            let row = self.rows.iter().find(|(_, row)| length <= *row).or(self.rows.last());
            let part = row.map_or(Part::Test, |(part, _)| *part);
            let target = self.rows.iter().any(|(_, row)| length == *row);
            Interaction { item, position, part, target }
        })
    }
}
