//! Splits each user's sequence into training, validation and test data.
//!
//! Every part is a prefix of a user's sequence, and its last item is the target. A later part of a user is longer than
//! an earlier one, which thus does not contain its target. [`Plan::check`] verifies this.

use std::ops::Range;

use clap::ValueEnum;
use podium_grpo::rng::Stream;
use podium_recsys::{UserId, dataset};
use serde::Serialize;

use super::arrange::Sequences;
use super::collector::Separation;
use super::rows::Error;

/// Separation of training and held-out data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Each user's last item is the test target and the item before it the validation target; training ends before both.
    LeaveOneOut,
    /// Interactions before the validation time are for training. Users with interactions between the validation time and
    /// the split time are validation users, and users with interactions at or after the split time are test users, each
    /// with their last item of that period as the target.
    Time,
    /// Some users are validation users and others test users, with all their interactions.
    Users,
    /// The parts of the files.
    #[value(skip)]
    Released,
}

/// The requested split.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) kind: Kind,
    /// For [`Kind::Time`]: the split time, if it is given.
    pub(crate) time: Option<i64>,
    /// For [`Kind::Time`]: the validation time, if it is given.
    pub(crate) validation_time: Option<i64>,
    /// For [`Kind::Time`] without a split time, the fraction of all interactions that are at or after it; for
    /// [`Kind::Users`], the probability that a user is a test user.
    pub(crate) test_share: f64,
    /// For [`Kind::Time`] without a validation time, the fraction of all interactions between it and the split time; for
    /// [`Kind::Users`], the probability that a user is a validation user. `None`: no validation part.
    pub(crate) validation_share: Option<f64>,
    /// Seed of [`Kind::Users`].
    pub(crate) seed: u64,
    /// For [`Kind::Released`]: the times that separate the parts.
    pub(crate) released: Option<Separation>,
}

/// Lengths of the prefixes of a user's sequence in each file; 0: no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Parts {
    pub(crate) train: usize,
    pub(crate) validation: usize,
    pub(crate) test: usize,
}

/// Assignment of all users.
#[derive(Debug)]
pub(crate) struct Plan {
    /// By index of the user.
    pub(crate) users: Vec<Parts>,
    /// For [`Kind::Time`] and [`Kind::Released`].
    pub(crate) times: Option<Separation>,
}

impl Plan {
    /// Splits `sequences`; `numbers` are the users' numbers, by index.
    pub(crate) fn new(sequences: &Sequences, numbers: &[u64], wish: &Wish) -> Result<Self, Error> {
        let validates = wish.validation_share.is_some();
        let times = match wish.kind {
            Kind::Time => Some(separation(sequences, wish)?),
            Kind::Released => wish.released.map(|Separation { validation, test }| Separation {
                validation: if validates { validation } else { test },
                test,
            }),
            Kind::LeaveOneOut | Kind::Users => None,
        };
        let parts = |user: usize| {
            let sequence = sequences.of(user);
            let length = sequence.len();
            let [train, validation, test] = match (wish.kind, times) {
                (Kind::Users, _) => {
                    let number = Stream::new(wish.seed, "import/held-out users", &[numbers[user]]).uniform();
                    if number < wish.test_share {
                        [0, 0, length]
                    } else if number < wish.test_share + wish.validation_share.unwrap_or(0.0) {
                        [0, length, 0]
                    } else {
                        [length, 0, 0]
                    }
                }
                (_, Some(times)) => {
                    let before = |time: i64| sequence.partition_point(|one| one.time < time);
                    let (train, validation) = (before(times.validation), before(times.test));
                    let held_out = |length: usize, before: usize| if before < length { length } else { 0 };
                    [train, held_out(validation, train), held_out(length, validation)]
                }
                (_, None) if validates => [length.saturating_sub(2), length.saturating_sub(1), length],
                (_, None) => [length.saturating_sub(1), 0, length],
            };
            // At least a history item and a target.
            let row = |length: usize| if length < 2 { 0 } else { length };
            Parts { train: row(train), validation: row(validation), test: row(test) }
        };
        let plan = Self { users: (0..sequences.users.len()).map(parts).collect(), times };
        let count = |length: fn(&Parts) -> usize| plan.users.iter().filter(|parts| length(parts) > 0).count();
        let cause = if validates {
            "no user has a history and a target on that side (--no-validation adds the validation part to training)"
        } else {
            "no user has a history and a target on that side"
        };
        for (side, users) in [
            ("training", count(|parts| parts.train)),
            ("validation", if validates { count(|parts| parts.validation) } else { 1 }),
            ("test", count(|parts| parts.test)),
        ] {
            if users == 0 {
                return Err(Error::EmptySide(side, cause));
            }
        }
        Ok(plan)
    }

    /// Verifies that no target is in an earlier part and, with a split by time, that each part of all users precedes the
    /// targets of the next.
    pub(crate) fn check(&self, sequences: &Sequences, numbers: &[u64]) -> Result<(), Error> {
        for (user, &Parts { train, validation, test }) in self.users.iter().enumerate() {
            let sequence = sequences.of(user);
            let overlap = |earlier: usize, later: usize| later > 0 && earlier >= later;
            let ends_before = |length: usize, time: i64| sequence[..length].iter().all(|one| one.time < time);
            let targets_in = |length: usize, period: Range<i64>| {
                sequence[..length].last().is_none_or(|target| period.contains(&target.time))
            };
            let mixes = overlap(train, validation)
                || overlap(train, test)
                || overlap(validation, test)
                || self.times.is_some_and(|times| {
                    !ends_before(train, times.validation)
                        || !targets_in(validation, times.validation..times.test)
                        || sequence[..test].last().is_some_and(|target| target.time < times.test)
                });
            if mixes {
                return Err(Error::TimesMix { user: UserId(numbers[user]) });
            }
        }
        Ok(())
    }
}

/// Returns the times that separate the parts of a split by time.
fn separation(sequences: &Sequences, wish: &Wish) -> Result<Separation, Error> {
    let mut times: Vec<i64> = sequences.interactions.iter().map(|one| one.time).collect();
    times.sort_unstable();
    let last = times.len() - 1;
    // The time of the interaction at this fraction of all interactions.
    let at = |share: f64| times[((times.len() as f64 * share.max(0.0)) as usize).min(last)];
    let test = wish.time.unwrap_or_else(|| at(1.0 - wish.test_share));
    let before = times.partition_point(|&time| time < test) as f64 / times.len() as f64;
    let validation = match (wish.validation_share, wish.validation_time) {
        (None, _) => test,
        (Some(_), Some(time)) => time,
        (Some(share), None) => at(before - share),
    };
    if wish.validation_share.is_some() && validation >= test {
        return Err(Error::ValidationTime);
    }
    Ok(Separation { validation, test })
}

impl Kind {
    /// Returns the corresponding option of the run file.
    pub(crate) const fn in_run_file(self) -> dataset::Split {
        match self {
            Self::LeaveOneOut | Self::Time | Self::Released => dataset::Split::Times,
            Self::Users => dataset::Split::Users,
        }
    }
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
        let mut skipped = Skipped::new(false, false);
        let keys = &[0, 1, 2, 3];
        let logs = &[Log { input: Input::named("log"), location: Location::Line }];
        let rows = Rows { logs, users: 4, items: keys, user_keys: keys, item_keys: keys };
        arrange(interactions, rows, (SameTime::Item, 0), minimum, &mut skipped).unwrap()
    }

    const WISH: Wish = Wish {
        kind: Kind::LeaveOneOut,
        time: None,
        validation_time: None,
        test_share: 0.4,
        validation_share: Some(0.2),
        seed: 1,
        released: None,
    };

    fn plan(wish: Wish) -> Result<Vec<[usize; 3]>, Error> {
        let sequences = sequences();
        let plan = Plan::new(&sequences, &NUMBERS, &wish)?;
        plan.check(&sequences, &NUMBERS)?;
        Ok(plan.users.iter().map(|parts| [parts.train, parts.validation, parts.test]).collect())
    }

    #[test]
    fn leave_one_out_holds_out_the_last_two_items() {
        assert_eq!(plan(WISH).unwrap(), [[2, 3, 4], [0, 0, 2], [0, 0, 2], [0, 2, 3]]);
        let two_parts = Wish { validation_share: None, ..WISH };
        assert_eq!(plan(two_parts).unwrap(), [[3, 0, 4], [0, 0, 2], [0, 0, 2], [2, 0, 3]]);
    }

    #[test]
    fn a_split_by_time_trains_on_earlier_interactions() {
        let by_time = Wish { kind: Kind::Time, test_share: 0.2, ..WISH };
        let at =
            |validation, test| plan(Wish { validation_time: Some(validation), time: Some(test), ..by_time });
        assert_eq!(at(3, 4).unwrap(), [[2, 3, 4], [2, 0, 0], [0, 0, 2], [0, 0, 3]]);
        // Of eleven times, 1 1 2 2 3 3 3 4 4 5 6, the first 0.8 end at a 4, and 0.2 less than those before 4 at a 3.
        assert_eq!(plan(by_time).unwrap(), at(3, 4).unwrap());
        assert_eq!(
            plan(Wish { time: Some(5), ..by_time }).unwrap(),
            [[2, 4, 0], [2, 0, 0], [0, 2, 0], [0, 0, 3]]
        );
        assert!(matches!(at(0, 4), Err(Error::EmptySide("training", _))));
        assert!(matches!(at(3, 7), Err(Error::EmptySide("test", _))));
        assert!(matches!(at(4, 4), Err(Error::ValidationTime)));
        assert!(matches!(at(5, 4), Err(Error::ValidationTime)));

        let two_parts = Wish { validation_share: None, ..by_time };
        let at = |test| plan(Wish { time: Some(test), ..two_parts });
        assert_eq!(at(4).unwrap(), [[3, 0, 4], [2, 0, 0], [0, 0, 2], [0, 0, 3]]);
        assert_eq!(plan(two_parts).unwrap(), at(4).unwrap());
    }

    #[test]
    fn the_parts_of_the_files_are_retained() {
        let released = Some(Separation { validation: 3, test: 4 });
        let of_files = Wish { kind: Kind::Released, released, ..WISH };
        assert_eq!(plan(of_files).unwrap(), [[2, 3, 4], [2, 0, 0], [0, 0, 2], [0, 0, 3]]);
        let two_parts = Wish { validation_share: None, ..of_files };
        assert_eq!(plan(two_parts).unwrap(), [[3, 0, 4], [2, 0, 0], [0, 0, 2], [0, 0, 3]]);
    }

    #[test]
    fn held_out_users_depend_on_their_number() {
        let by_user = |validation_share, seed| {
            let wish = Wish { kind: Kind::Users, test_share: 0.3, validation_share, seed, ..WISH };
            plan(wish).ok()
        };
        let mut three = (0..1_000).filter_map(|seed| Some((by_user(Some(0.3), seed)?, by_user(None, seed)?)));
        let (users, of_two_parts) = three.next().unwrap();
        assert!(
            users.iter().all(|parts| parts.iter().filter(|&&length| length > 0).count() == 1),
            "{users:?}"
        );
        for part in 0..3 {
            assert!(users.iter().any(|parts| parts[part] > 0), "{users:?}");
        }
        let test = |users: &[[usize; 3]]| users.iter().map(|parts| parts[2]).collect::<Vec<_>>();
        assert_eq!(test(&users), test(&of_two_parts), "the validation part is taken from the training part");
    }

    #[test]
    fn the_check_detects_overlap() {
        let sequences = sequences();
        let parts = |train, validation, test| Parts { train, validation, test };
        let check = |user: usize, of_user: Parts, times: Option<Separation>| {
            let mut users = vec![Parts::default(); 4];
            users[user] = of_user;
            Plan { users, times }.check(&sequences, &NUMBERS)
        };
        let mixes = |result| matches!(result, Err(Error::TimesMix { user: UserId(7) }));
        check(0, parts(2, 3, 4), None).unwrap();
        for of_user in [parts(4, 0, 4), parts(3, 3, 4), parts(2, 4, 4), parts(3, 2, 0)] {
            assert!(mixes(check(0, of_user, None)), "{of_user:?}");
        }
        let times = Some(Separation { validation: 3, test: 4 });
        check(0, parts(2, 3, 4), times).unwrap();
        for of_user in [parts(3, 0, 4), parts(0, 2, 4), parts(0, 4, 0), parts(2, 0, 3)] {
            assert!(mixes(check(0, of_user, times)), "{of_user:?}");
        }
    }
}
