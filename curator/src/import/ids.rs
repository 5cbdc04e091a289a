//! Maps names of users and items in external data sets to numbers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

/// Names in order of first appearance. If all are plain numbers, they are preserved; otherwise all are numbered from 1
/// in that order.
///
/// A name that is no number takes its bytes and about 20 more.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    // The maps are used only for lookups, so that results do not depend on their order.
    numbers: HashMap<u64, u32>,
    /// Positions in `texts`, by hash of the text.
    positions: HashTable<u32>,
    hasher: RandomState,
    texts: Texts,
    /// Index of each text.
    indices: Vec<u32>,
    len: u32,
}

/// Texts in one piece of memory.
#[derive(Debug, Default)]
struct Texts {
    bytes: String,
    /// End of each text.
    ends: Vec<usize>,
}

/// Numbers of the names.
#[derive(Debug)]
pub(crate) struct Numbering {
    /// The number of each name, by index.
    pub(crate) numbers: Vec<u64>,
    /// The names, if new numbers were assigned.
    pub(crate) names: Option<Names>,
    /// A key for each name, by index, that depends only on the name, not on the order of files or on other names.
    pub(crate) keys: Vec<u64>,
}

/// Names by index.
#[derive(Debug)]
pub(crate) struct Names {
    texts: Texts,
    /// Position of each name among the texts; `NUMBER` for a number.
    positions: Vec<u32>,
}

/// Marks a name that is a number.
const NUMBER: u32 = u32::MAX;

impl Texts {
    fn get(&self, position: u32) -> &str {
        let position = position as usize;
        let start = position.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[position]]
    }
}

impl Names {
    /// Returns the name at `index`, whose key is `key`.
    pub(crate) fn get(&self, index: usize, key: u64) -> Cow<'_, str> {
        match self.positions[index] {
            NUMBER => Cow::Owned(key.to_string()),
            position => Cow::Borrowed(self.texts.get(position)),
        }
    }
}

impl Ids {
    /// Returns the index of `name`, and whether it is new.
    pub(crate) fn intern(&mut self, name: &str) -> (u32, bool) {
        let next = self.len;
        let index = match canonical(name) {
            Some(number) => *self.numbers.entry(number).or_insert(next),
            None => self.find_text(name).unwrap_or_else(|| self.add_text(name, next)),
        };
        let new = index == next;
        self.len += u32::from(new);
        (index, new)
    }

    /// Returns the index of `name`, if it exists.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        match canonical(name) {
            Some(number) => self.numbers.get(&number).copied(),
            None => self.find_text(name),
        }
    }

    fn find_text(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        let position = self.positions.find(hash, |&position| self.texts.get(position) == name)?;
        Some(self.indices[*position as usize])
    }

    fn add_text(&mut self, name: &str, index: u32) -> u32 {
        let position = u32::try_from(self.indices.len()).unwrap_or(NUMBER);
        self.texts.bytes.push_str(name);
        self.texts.ends.push(self.texts.bytes.len());
        self.indices.push(index);
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.positions
            .insert_unique(hasher.hash_one(name), position, |&position| hasher.hash_one(texts.get(position)));
        index
    }

    /// Assigns numbers to the names.
    pub(crate) fn number(self) -> Numbering {
        let mut keys = vec![0; self.len as usize];
        for (&number, &index) in &self.numbers {
            keys[index as usize] = number;
        }
        if self.indices.is_empty() {
            return Numbering { numbers: keys.clone(), names: None, keys };
        }
        let mut positions = vec![NUMBER; self.len as usize];
        for (position, &index) in (0..).zip(&self.indices) {
            keys[index as usize] = hash(self.texts.get(position));
            positions[index as usize] = position;
        }
        let names = Names { texts: self.texts, positions };
        Numbering { numbers: (1..=u64::from(self.len)).collect(), names: Some(names), keys }
    }
}

/// Returns the first 64 bits of the BLAKE3 hash of `name`.
fn hash(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    hash.as_bytes().iter().take(8).fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Parses `name` as plain digits without leading zeros.
fn canonical(name: &str) -> Option<u64> {
    name.parse().ok().map(|podium_recsys::ItemId(number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbering(names: &[&str]) -> Numbering {
        let mut ids = Ids::default();
        for name in names {
            ids.intern(name);
        }
        assert_eq!(ids.find(names[0]), Some(0));
        ids.number()
    }

    #[test]
    fn numbers_are_preserved_and_other_names_are_numbered() {
        let kept = numbering(&["7", "3", "7", "18446744073709551615"]);
        assert_eq!((kept.numbers, kept.names.is_none()), (vec![7, 3, u64::MAX], true));

        // A leading zero is significant: 07 and 7 differ.
        let made = numbering(&["7", "07", "B00X", "07"]);
        assert_eq!(made.numbers, [1, 2, 3]);
        let names = made.names.unwrap();
        let names: Vec<_> = made.keys.iter().enumerate().map(|(index, &key)| names.get(index, key)).collect();
        assert_eq!(names, ["7", "07", "B00X"]);
    }

    #[test]
    fn the_key_of_a_name_depends_only_on_the_name() {
        assert_eq!(numbering(&["7", "3"]).keys, [7, 3]);
        let made = numbering(&["B00X", "7", "07"]).keys;
        let again = numbering(&["07", "B00Y", "7", "B00X"]).keys;
        assert_eq!(made, [again[3], again[2], again[0]]);
        assert_eq!(made[1], 7);
        assert_ne!(again[0], again[1]);
    }
}
