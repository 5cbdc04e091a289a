//! Converts rows in file order into each user's interactions, oldest first.

use std::ops::Range;

use clap::ValueEnum;
use podium_grpo::rng::Stream;
use podium_recsys::dataset::Location;
use serde::Serialize;

use super::collector::{Interaction, Log};
use super::rows::{Earlier, Error, Problem};
use super::skipped::Skipped;

/// Order of interactions of one user at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SameTime {
    /// A random order that depends on --seed, the user's id and the item's id. It contains no information about the
    /// target and does not depend on the order of rows.
    Random,
    /// Ascending item number. The order then depends on item numbers: rankers that know only item numbers score above
    /// chance.
    Item,
    /// The order of the rows in the file.
    File,
    /// Interactions at the same time are bad rows: all except the first are rejected, or skipped with --skip-bad-rows.
    Bad,
}

/// Minimum numbers of interactions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minimum {
    /// Of a user.
    pub(crate) of_user: usize,
    /// Of an item.
    pub(crate) of_item: usize,
}

/// Context of the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The files of the rows.
    pub(crate) logs: &'a [Log],
    /// Number of users.
    pub(crate) users: usize,
    /// The number of each item, by index.
    pub(crate) items: &'a [u64],
    /// A key for each user, by index, that depends only on the user's id.
    pub(crate) user_keys: &'a [u64],
    /// A key for each item, by index, that depends only on the item's id.
    pub(crate) item_keys: &'a [u64],
}

/// Each user's interactions and the counts of excluded ones.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    /// Sorted by user, time and position in the file.
    pub(crate) interactions: Vec<Interaction>,
    /// Range of each user, by index of the user; empty for excluded users.
    pub(crate) users: Vec<Range<usize>>,
    /// Whether an item is retained, by index of the item.
    pub(crate) items: Vec<bool>,
    /// Retained interactions at the time of an earlier one of the same user.
    pub(crate) same_time: u64,
    /// Users excluded for too few interactions.
    pub(crate) users_too_short: u64,
    /// Items excluded for too few interactions.
    pub(crate) items_too_rare: u64,
}

/// Sorts `interactions` and applies the filters until a fixed point.
pub(crate) fn arrange(
    mut interactions: Vec<Interaction>,
    rows: Rows<'_>,
    (same_time, seed): (SameTime, u64),
    minimum: Minimum,
    skipped: &mut Skipped,
) -> Result<Sequences, Error> {
    interactions.sort_unstable_by_key(|one| (one.user, one.time, one.log, one.row));
    for group in interactions.chunk_by_mut(|one, other| (one.user, one.time) == (other.user, other.time)) {
        match same_time {
            // Sorting is stable: repeated rows stay in file order.
            SameTime::Random if group.len() > 1 => {
                group.sort_by_cached_key(|one| (random_key(one, rows, seed), one.item));
            }
            SameTime::Item => group.sort_by_key(|one| rows.items[one.item as usize]),
            SameTime::Random | SameTime::File | SameTime::Bad => {}
        }
    }
    let mut sequences = Sequences { items: vec![true; rows.items.len()], ..Sequences::default() };
    sequences.same_time = drop_repeated(&mut interactions, same_time, rows, skipped)?;
    lonely(&mut interactions, rows, minimum, skipped)?;
    sequences.interactions = interactions;
    sequences.filter(rows.users, minimum);
    sequences.users = ranges(&sequences.interactions, rows.users);
    if sequences.interactions.is_empty() {
        return Err(Error::NobodyLeft);
    }
    Ok(sequences)
}

/// Returns the sort key of an interaction among those of the same user and time, for a random order.
fn random_key(one: &Interaction, rows: Rows<'_>, seed: u64) -> u64 {
    let key = [rows.user_keys[one.user as usize], rows.item_keys[one.item as usize]];
    Stream::new(seed, "import/same time", &key).next_u64()
}

/// Removes repeated interactions, and those at the same time as another if they are bad; returns the number of the
/// latter that were retained.
fn drop_repeated(
    interactions: &mut Vec<Interaction>,
    same_time: SameTime,
    rows: Rows<'_>,
    skipped: &mut Skipped,
) -> Result<u64, Error> {
    let (mut kept, mut ties) = (0, 0);
    // Index of the first retained interaction of the current user and time.
    let mut group_start = 0;
    for next in 0..interactions.len() {
        let one = interactions[next];
        if kept == 0
            || (interactions[group_start].user, interactions[group_start].time) != (one.user, one.time)
        {
            group_start = kept;
        } else {
            let before = &interactions[group_start..kept];
            let problem = match before.iter().find(|earlier| earlier.item == one.item) {
                Some(earlier) => Some(Problem::RepeatedInteraction(rows.earlier(earlier, &one))),
                None if same_time == SameTime::Bad => Some(Problem::SameTime(rows.earlier(&before[0], &one))),
                None => None,
            };
            if let Some(problem) = problem {
                skipped.bad(&rows.log(&one).input, rows.location(&one), problem)?;
                continue;
            }
            ties += 1;
        }
        interactions[kept] = one;
        kept += 1;
    }
    interactions.truncate(kept);
    Ok(ties)
}

/// Removes users with a single interaction, which have no history before the target: bad rows, unless shorter users are
/// excluded anyway.
fn lonely(
    interactions: &mut Vec<Interaction>,
    rows: Rows<'_>,
    minimum: Minimum,
    skipped: &mut Skipped,
) -> Result<(), Error> {
    if minimum.of_user > 2 {
        return Ok(());
    }
    let ranges = ranges(interactions, rows.users);
    let mut alone: Vec<&Interaction> =
        ranges.iter().filter(|range| range.len() == 1).map(|range| &interactions[range.start]).collect();
    alone.sort_unstable_by_key(|one| (one.log, one.row));
    for one in alone {
        skipped.bad(&rows.log(one).input, rows.location(one), Problem::TooFewItems)?;
    }
    interactions.retain(|one| ranges[one.user as usize].len() > 1);
    Ok(())
}

impl Sequences {
    fn filter(&mut self, users: usize, minimum: Minimum) {
        loop {
            let (mut of_user, mut of_item) = (vec![0_usize; users], vec![0_usize; self.items.len()]);
            for one in &self.interactions {
                of_user[one.user as usize] += 1;
                of_item[one.item as usize] += 1;
            }
            for (keep, &count) in self.items.iter_mut().zip(&of_item) {
                if *keep && count < minimum.of_item {
                    *keep = false;
                    self.items_too_rare += 1;
                }
            }
            let short = |count: usize| count < minimum.of_user.max(2);
            // A user excluded in an earlier round has no interactions left.
            self.users_too_short += of_user.iter().filter(|&&count| count > 0 && short(count)).count() as u64;
            let before = self.interactions.len();
            let items = &self.items;
            self.interactions.retain(|one| items[one.item as usize] && !short(of_user[one.user as usize]));
            if self.interactions.len() == before {
                return;
            }
        }
    }

    /// Returns a user's interactions, oldest first.
    pub(crate) fn of(&self, user: usize) -> &[Interaction] {
        &self.interactions[self.users[user].clone()]
    }
}

/// Returns the range of each user in interactions sorted by user.
fn ranges(interactions: &[Interaction], users: usize) -> Vec<Range<usize>> {
    let mut ranges = vec![0..0; users];
    let mut start = 0;
    for chunk in interactions.chunk_by(|one, other| one.user == other.user) {
        ranges[chunk[0].user as usize] = start..start + chunk.len();
        start += chunk.len();
    }
    ranges
}

impl<'a> Rows<'a> {
    fn log(self, one: &Interaction) -> &'a Log {
        &self.logs[one.log as usize]
    }

    fn location(self, one: &Interaction) -> Location {
        (self.log(one).location)(u64::from(one.row))
    }

    fn earlier(self, earlier: &Interaction, one: &Interaction) -> Earlier {
        let file = (earlier.log != one.log).then(|| self.log(earlier).input.name.clone());
        Earlier { location: self.location(earlier), file }
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::Input;
    use super::*;

    fn interactions(rows: &[(u32, u32, i64)]) -> Vec<Interaction> {
        (1..)
            .zip(rows)
            .map(|(row, &(user, item, time))| Interaction { user, item, time, log: 0, row })
            .collect()
    }

    fn arranged(
        rows: &[(u32, u32, i64)],
        same_time: SameTime,
        (of_user, of_item): (usize, usize),
        skip: bool,
    ) -> Result<(Sequences, Skipped), Error> {
        let mut skipped = Skipped::new(skip, false);
        let minimum = Minimum { of_user, of_item };
        arrange(interactions(rows), known(), (same_time, 0), minimum, &mut skipped)
            .map(|sequences| (sequences, skipped))
    }

    fn known() -> Rows<'static> {
        let log = Log { input: Input::named("log"), location: Location::Line };
        Rows {
            logs: Box::leak(Box::new([log])),
            users: 4,
            items: &[5, 4, 3, 2, 1],
            user_keys: &[70, 71, 72, 73],
            item_keys: &[5, 4, 3, 2, 1],
        }
    }

    fn items(sequences: &Sequences, user: usize) -> Vec<u32> {
        sequences.of(user).iter().map(|one| one.item).collect()
    }

    #[test]
    fn interactions_are_sorted_by_time_and_then_as_requested() {
        let rows = [(1, 0, 9), (0, 1, 5), (1, 2, 3), (0, 3, 5), (0, 0, 4), (1, 1, 9)];
        let (sequences, _) = arranged(&rows, SameTime::File, (2, 0), false).unwrap();
        assert_eq!(items(&sequences, 0), [0, 1, 3]);
        assert_eq!(items(&sequences, 1), [2, 0, 1]);
        assert!(sequences.of(3).is_empty());
        assert_eq!(sequences.same_time, 2);

        // By number: items 1 and 3 have the numbers 4 and 2.
        let (sequences, _) = arranged(&rows, SameTime::Item, (2, 0), false).unwrap();
        assert_eq!(items(&sequences, 0), [0, 3, 1]);

        let error = arranged(&rows, SameTime::Bad, (2, 0), false).unwrap_err();
        let expected = "the same user and time as line 2: their order is unknown";
        assert!(
            matches!(&error, Error::Row { location: Location::Line(4), problem, .. } if problem.to_string() == expected),
            "{error}"
        );
        let (sequences, skipped) = arranged(&rows, SameTime::Bad, (2, 0), true).unwrap();
        assert_eq!(items(&sequences, 0), [0, 1]);
        assert_eq!(skipped.into_rows()["log: same_time"].count, 2);
    }

    /// Returns the items of one user at one time, in the random order of `seed`.
    fn random(items: impl IntoIterator<Item = u32>, user: u32, seed: u64) -> Vec<u32> {
        let rows: Vec<(u32, u32, i64)> = items.into_iter().map(|item| (user, item, 5)).collect();
        let minimum = Minimum { of_user: 2, of_item: 0 };
        let mut skipped = Skipped::new(false, false);
        let order = (SameTime::Random, seed);
        let sequences = arrange(interactions(&rows), known(), order, minimum, &mut skipped).unwrap();
        sequences.of(user as usize).iter().map(|one| one.item).collect()
    }

    #[test]
    fn the_random_order_depends_only_on_seed_user_and_item() {
        let order = random(0..5, 0, 0);
        assert_eq!(random([3, 1, 4, 0, 2], 0, 0), order, "the order of the rows does not matter");
        let without_two: Vec<u32> = order.iter().copied().filter(|&item| item != 2).collect();
        assert_eq!(random([4, 3, 1, 0], 0, 0), without_two, "other items do not matter");
        assert!((1..9).any(|seed| random(0..5, 0, seed) != order), "the seed matters");
        assert!((1..4).any(|user| random(0..5, user, 0) != order), "the user matters");

        // Each item is the last one, the target, in a fifth of 2,000 orders: standard deviation 18.
        let mut last = [0_usize; 5];
        for seed in 0..2_000 {
            last[random(0..5, 0, seed)[4] as usize] += 1;
        }
        assert!(last.iter().all(|count| (325..475).contains(count)), "{last:?}");
    }

    #[test]
    fn a_repeated_row_is_bad() {
        let rows = [(0, 1, 5), (0, 2, 5), (0, 1, 5), (0, 1, 6)];
        for order in [SameTime::Random, SameTime::Item, SameTime::File] {
            let error = arranged(&rows, order, (2, 0), false).unwrap_err();
            assert!(error.to_string().contains("line 3: the same user, item and time as line 1"), "{error}");
        }
        let (sequences, _) = arranged(&rows, SameTime::File, (2, 0), true).unwrap();
        assert_eq!(items(&sequences, 0), [1, 2, 1]);
    }

    #[test]
    fn a_single_interaction_is_bad_unless_short_users_are_excluded() {
        let rows = [(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 1)];
        let error = arranged(&rows, SameTime::File, (2, 0), false).unwrap_err();
        assert!(matches!(
            error,
            Error::Row { location: Location::Line(4), problem: Problem::TooFewItems, .. }
        ));
        let (sequences, _) = arranged(&rows, SameTime::File, (3, 0), false).unwrap();
        assert_eq!((sequences.users_too_short, sequences.interactions.len()), (1, 3));
        assert!(matches!(arranged(&rows, SameTime::File, (4, 0), false), Err(Error::NobodyLeft)));
    }

    #[test]
    fn filters_reach_a_fixed_point() {
        // Item 4 is rare; without it user 1 is short; without user 1 item 3 is rare.
        let rows = [(0, 0, 1), (0, 1, 2), (0, 3, 3), (1, 3, 1), (1, 4, 2), (2, 0, 1), (2, 1, 2)];
        let (sequences, _) = arranged(&rows, SameTime::File, (2, 2), false).unwrap();
        assert_eq!(sequences.items, [true, true, false, false, false]);
        assert_eq!(
            (items(&sequences, 0), items(&sequences, 1), items(&sequences, 2)),
            (vec![0, 1], vec![], vec![0, 1])
        );
        assert_eq!((sequences.users_too_short, sequences.items_too_rare), (1, 3));
    }
}
