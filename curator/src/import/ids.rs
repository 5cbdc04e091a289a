//! Maps names of users and items in external data sets to numbers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Names in order of first appearance. If all are plain numbers, they are preserved; otherwise all are numbered from 1
/// in that order.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    // The maps are used only for lookups, so that results do not depend on their order.
    numbers: HashMap<u64, u32>,
    texts: HashMap<Box<str>, u32>,
    len: u32,
}

/// Numbers of the names.
#[derive(Debug)]
pub(crate) struct Numbering {
    /// The number of each name, by index.
    pub(crate) numbers: Vec<u64>,
    /// The names by index, if new numbers were assigned.
    pub(crate) names: Option<Vec<Box<str>>>,
    /// A key for each name, by index, that depends only on the name, not on the order of files or on other names.
    pub(crate) keys: Vec<u64>,
}

impl Ids {
    /// Returns the index of `name`, and whether it is new.
    pub(crate) fn intern(&mut self, name: &str) -> (u32, bool) {
        let next = self.len;
        let index = match canonical(name) {
            Some(number) => *self.numbers.entry(number).or_insert(next),
            None => match self.texts.entry(name.into()) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(free) => *free.insert(next),
            },
        };
        let new = index == next;
        self.len += u32::from(new);
        (index, new)
    }

    /// Returns the index of `name`, if it exists.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        match canonical(name) {
            Some(number) => self.numbers.get(&number).copied(),
            None => self.texts.get(name).copied(),
        }
    }

    /// Assigns numbers to the names.
    pub(crate) fn number(self) -> Numbering {
        let mut keys = vec![0; self.len as usize];
        for (&number, &index) in &self.numbers {
            keys[index as usize] = number;
        }
        if self.texts.is_empty() {
            return Numbering { numbers: keys.clone(), names: None, keys };
        }
        let mut names = vec![Box::default(); self.len as usize];
        for (number, index) in self.numbers {
            names[index as usize] = number.to_string().into();
        }
        for (text, index) in self.texts {
            keys[index as usize] = hash(&text);
            names[index as usize] = text;
        }
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
        assert_eq!((kept.numbers, kept.names), (vec![7, 3, u64::MAX], None));

        // A leading zero is significant: 07 and 7 differ.
        let made = numbering(&["7", "07", "B00X", "07"]);
        assert_eq!(made.numbers, [1, 2, 3]);
        assert_eq!(made.names.unwrap(), ["7", "07", "B00X"].map(Box::from));
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
