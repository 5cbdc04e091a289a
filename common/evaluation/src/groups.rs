//! Slices of the evaluated users.

use podium_recsys::ranking::{Slice, slices};
use podium_recsys::{Dataset, User};

/// Number of slices of about equal size of each kind.
const SLICES: usize = 3;

/// Users with fewer interactions before the target than this are a slice of their own.
pub const SHORT_HISTORY: u64 = 5;

/// Some of the evaluated users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The number that the users have in common: `target_interactions` or `history_length`.
    pub by: &'static str,
    /// The range of that number, and the users.
    pub slice: Slice,
}

impl Group {
    /// "`history_length` 1-4"
    pub fn name(&self) -> String {
        format!("{} {}-{}", self.by, self.slice.range.start(), self.slice.range.end())
    }
}

/// Returns the slices of `users` by the target's number of training interactions and by the length of the history: three
/// of about equal size, and cold items (targets without training interactions) and users with short histories
/// ([`SHORT_HISTORY`]) where only some of the users are in them.
pub fn groups(dataset: &Dataset, users: &[&User]) -> Vec<Group> {
    let interactions =
        |user: &&User| dataset.catalogue.get(user.target()).map_or(0, |item| item.interactions);
    let taken: Vec<u64> = users.iter().map(interactions).collect();
    let before: Vec<u64> = users.iter().map(|user| user.items.len() as u64 - 1).collect();
    let kinds = [("target_interactions", taken, 0), ("history_length", before, SHORT_HISTORY - 1)];
    kinds.into_iter().flat_map(|(by, numbers, most)| of_kind(by, &numbers, most)).collect()
}

/// `most`: largest number of the additional slice.
fn of_kind(by: &'static str, numbers: &[u64], most: u64) -> Vec<Group> {
    let mut found = slices(numbers, SLICES);
    let members: Vec<usize> = (0..numbers.len()).filter(|&user| numbers[user] <= most).collect();
    let start = members.iter().map(|&user| numbers[user]).min();
    if let Some(start) = start.filter(|_| members.len() < numbers.len()) {
        let slice = Slice { range: start..=most, members };
        if found.iter().all(|other| other.range != slice.range) {
            found.push(slice);
        }
    }
    found.into_iter().map(|slice| Group { by, slice }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_items_and_short_histories_are_slices() {
        let names = |numbers: &[u64], most| -> Vec<String> {
            of_kind("n", numbers, most).iter().map(Group::name).collect()
        };
        assert_eq!(names(&[0, 1, 2, 3, 4, 5], 0), ["n 0-1", "n 2-3", "n 4-5", "n 0-0"]);
        assert_eq!(names(&[0, 0, 0, 3, 4, 5], 0), ["n 0-0", "n 3-3", "n 4-5"], "no slice is repeated");
        assert_eq!(names(&[2, 3, 9, 9], 4), ["n 2-3", "n 9-9", "n 2-4"]);
        assert_eq!(names(&[2, 4, 9, 9], 4), ["n 2-4", "n 9-9"]);
        assert_eq!(names(&[5, 6, 7], 4), ["n 5-5", "n 6-6", "n 7-7"], "no user is in it");
        assert_eq!(names(&[1, 1], 4), ["n 1-1"], "all users are in it");
    }
}
