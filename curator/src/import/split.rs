//! Splits each user's sequence into training and held-out data.
//!
//! Every part is a prefix of a user's sequence. A row in test.tsv is at least as long as the user's row in train.tsv,
//! which does not contain the target, its last item. [`Plan::check`] verifies this.

use clap::ValueEnum;
use podium_grpo::rng::Stream;
use podium_recsys::{UserId, dataset};
use serde::Serialize;

use super::arrange::Sequences;
use super::rows::Error;

/// Separation of training and held-out data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Each user's last item is held out; training ends with the previous one.
    LeaveOneOut,
    /// Interactions before the split time are for training; users with interactions at or after it are held out with
    /// their last item as the target.
    Time,
    /// Some users are held out with all their interactions.
    Users,
}

/// The requested split.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) kind: Kind,
    /// For [`Kind::Time`]: the split time, if it is given.
    pub(crate) time: Option<i64>,
    /// For [`Kind::Time`] without a split time, the fraction of all interactions that are at or after it; for
    /// [`Kind::Users`], the probability that a user is held out.
    pub(crate) test_share: f64,
    /// Seed of [`Kind::Users`].
    pub(crate) seed: u64,
}

/// Lengths of the prefixes of a user's sequence in each file; 0: no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Parts {
    pub(crate) train: usize,
    pub(crate) test: usize,
}

/// Assignment of all users.
#[derive(Debug)]
pub(crate) struct Plan {
    /// By index of the user.
    pub(crate) users: Vec<Parts>,
    /// The split time, for [`Kind::Time`].
    pub(crate) split_time: Option<i64>,
}

impl Plan {
    /// Splits `sequences`; `numbers` are the users' numbers, by index.
    pub(crate) fn new(sequences: &Sequences, numbers: &[u64], wish: &Wish) -> Result<Self, Error> {
        let split_time = match wish.kind {
            Kind::Time => Some(wish.time.unwrap_or_else(|| quantile(sequences, 1.0 - wish.test_share))),
            Kind::LeaveOneOut | Kind::Users => None,
        };
        let parts = |user: usize| {
            let sequence = sequences.of(user);
            let length = sequence.len();
            let (train, test) = match (wish.kind, split_time) {
                (Kind::Users, _) if held_out(numbers[user], wish) => (0, length),
                (Kind::Users, _) => (length, 0),
                (_, Some(split_time)) => {
                    let before = sequence.partition_point(|one| one.time < split_time);
                    (before, if before < length { length } else { 0 })
                }
                (_, None) => (length.saturating_sub(1), length),
            };
            // At least a history item and a target.
            let row = |length: usize| if length < 2 { 0 } else { length };
            Parts { train: row(train), test: row(test) }
        };
        let plan = Self { users: (0..sequences.users.len()).map(parts).collect(), split_time };
        if plan.users.iter().all(|parts| parts.train == 0) {
            return Err(Error::EmptySide("training", "no user has two interactions on that side"));
        }
        if plan.users.iter().all(|parts| parts.test == 0) {
            return Err(Error::EmptySide("held-out", "no user has a history and a target on that side"));
        }
        Ok(plan)
    }

    /// Verifies that no target is in the training data and, with a split by time, that all training data precede all
    /// targets.
    pub(crate) fn check(&self, sequences: &Sequences, numbers: &[u64]) -> Result<(), Error> {
        for (user, parts) in self.users.iter().enumerate() {
            let sequence = sequences.of(user);
            let mixes = (parts.test > 0 && parts.train >= parts.test)
                || self.split_time.is_some_and(|split_time| {
                    sequence[..parts.train].iter().any(|one| one.time >= split_time)
                        || sequence[..parts.test].last().is_some_and(|target| target.time < split_time)
                });
            if mixes {
                return Err(Error::TimesMix { user: UserId(numbers[user]) });
            }
        }
        Ok(())
    }
}

impl Kind {
    /// Returns the corresponding option of the run file.
    pub(crate) const fn in_run_file(self) -> dataset::Split {
        match self {
            Self::LeaveOneOut | Self::Time => dataset::Split::Times,
            Self::Users => dataset::Split::Users,
        }
    }
}

fn held_out(number: u64, wish: &Wish) -> bool {
    Stream::new(wish.seed, "import/held-out users", &[number]).uniform() < wish.test_share
}

/// Returns the time of the interaction at this quantile of all interactions.
fn quantile(sequences: &Sequences, share: f64) -> i64 {
    let mut times: Vec<i64> = sequences.interactions.iter().map(|one| one.time).collect();
    let last = times.len() - 1;
    let index = ((times.len() as f64 * share) as usize).min(last);
    *times.select_nth_unstable(index).1
}

#[cfg(test)]
mod tests {
    use podium_recsys::dataset::Location;

    use super::super::arrange::{Minimum, Rows, SameTime, arrange};
    use super::super::collector::{Interaction, Log};
    use super::super::input::Input;
    use super::super::skipped::Skipped;
    use super::*;

    const NUMBERS: [u64; 4] = [7, 3, 5, 9];

    /// User 0 at times 1 to 4, user 1 at 1 and 2, user 2 at 3 and 4, user 3 at 3, 5, 6.
    fn sequences() -> Sequences {
        let rows = [&[1, 2, 3, 4][..], &[1, 2], &[3, 4], &[3, 5, 6]];
        let interactions: Vec<Interaction> = (0..)
            .zip(rows)
            .flat_map(|(user, times)| {
                (0..).zip(times).map(move |(item, &time)| Interaction { user, item, time, log: 0, row: 0 })
            })
            .collect();
        let minimum = Minimum { of_user: 2, of_item: 0 };
        let mut skipped = Skipped::new(false);
        let keys = &[0, 1, 2, 3];
        let logs = &[Log { input: Input::named("log"), location: Location::Line }];
        let rows = Rows { logs, users: 4, items: keys, user_keys: keys, item_keys: keys };
        arrange(interactions, rows, (SameTime::Item, 0), minimum, &mut skipped).unwrap()
    }

    fn plan(kind: Kind, time: Option<i64>) -> Result<Vec<(usize, usize)>, Error> {
        let wish = Wish { kind, time, test_share: 0.4, seed: 1 };
        let sequences = sequences();
        let plan = Plan::new(&sequences, &NUMBERS, &wish)?;
        plan.check(&sequences, &NUMBERS)?;
        Ok(plan.users.iter().map(|parts| (parts.train, parts.test)).collect())
    }

    #[test]
    fn leave_one_out_holds_out_each_last_item() {
        assert_eq!(plan(Kind::LeaveOneOut, None).unwrap(), [(3, 4), (0, 2), (0, 2), (2, 3)]);
    }

    #[test]
    fn a_split_by_time_trains_on_earlier_interactions() {
        assert_eq!(plan(Kind::Time, Some(4)).unwrap(), [(3, 4), (2, 0), (0, 2), (0, 3)]);
        // Seven of eleven times, 1 1 2 2 3 3 3, are in the first 0.6 of all.
        assert_eq!(plan(Kind::Time, None).unwrap(), [(2, 4), (2, 0), (0, 2), (0, 3)]);
        assert!(matches!(plan(Kind::Time, Some(0)), Err(Error::EmptySide("training", _))));
        assert!(matches!(plan(Kind::Time, Some(7)), Err(Error::EmptySide("held-out", _))));
    }

    #[test]
    fn held_out_users_depend_on_their_number() {
        let users = plan(Kind::Users, None).unwrap();
        assert!(users.iter().all(|&(train, test)| (train == 0) != (test == 0)));
        assert!(users.iter().any(|&(train, _)| train > 0) && users.iter().any(|&(_, test)| test > 0));
    }

    #[test]
    fn the_check_detects_overlap() {
        let sequences = sequences();
        let mut plan = Plan { users: vec![Parts::default(); 4], split_time: None };
        plan.users[0] = Parts { train: 3, test: 4 };
        assert!(plan.check(&sequences, &NUMBERS).is_ok());
        plan.users[0] = Parts { train: 4, test: 4 };
        assert!(matches!(plan.check(&sequences, &NUMBERS), Err(Error::TimesMix { user: UserId(7) })));

        plan.split_time = Some(4);
        plan.users[0] = Parts { train: 3, test: 4 };
        assert!(plan.check(&sequences, &NUMBERS).is_ok());
        plan.users[3] = Parts { train: 2, test: 0 };
        assert!(matches!(plan.check(&sequences, &NUMBERS), Err(Error::TimesMix { user: UserId(9) })));
        plan.users[3] = Parts { train: 0, test: 0 };
        plan.users[1] = Parts { train: 0, test: 2 };
        assert!(matches!(plan.check(&sequences, &NUMBERS), Err(Error::TimesMix { user: UserId(3) })));
    }
}
