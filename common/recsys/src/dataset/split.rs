//! Separation of a data set into training, validation and test users, and its checks.
//!
//! Training reads the training part. Every choice that a run makes (the inflation watch, the best version, early
//! stopping) reads the validation part. The test part is for the results that are quoted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use podium_grpo::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rows::Error;
use super::user::User;
use crate::ids::UserId;

/// One of this many training users becomes a validation user if the folder has no validation part.
const TRAINING_USERS_PER_VALIDATION_USER: usize = 10;

/// Separation of training and held-out data, which is checked when a data set is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// No user is in two parts.
    Users,
    /// A user may be in several parts, as in leave-one-out: the user's training row is then a prefix of the validation
    /// row, which is a prefix of the test row, and each ends before the next one's target.
    Times,
}

/// Origin of the validation users, by which a run chooses its best version and when to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// validation.tsv if the folder has one. Otherwise they are taken from the training data alone, the same in every
    /// run: with `split = "times"` the last training item of each user becomes a validation target, with `split =
    /// "users"` a tenth of the training users become validation users. Neither is then trained on.
    #[default]
    Auto,
    /// validation.tsv, which must exist.
    File,
    /// No validation users: every row of train.tsv is trained on, and no version is evaluated while training.
    None,
}

/// A part of a data set that is not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeldOut {
    /// Users by which a run chooses its best version and when to end.
    #[default]
    Validation,
    /// Users whose results are quoted. No choice of a run depends on their targets.
    Test,
}

impl fmt::Display for HeldOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// Where the validation users of a data set come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ValidationSource {
    /// The data set has no validation users.
    #[default]
    Nowhere,
    /// validation.tsv.
    File,
    /// The last training item of each user is the target.
    LastTrainingItems,
    /// A tenth of the training users.
    TrainingUsers,
}

impl fmt::Display for ValidationSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nowhere => "none",
            Self::File => "from validation.tsv",
            Self::LastTrainingItems => "with the last item of each row of train.tsv as their targets",
            Self::TrainingUsers => "a tenth of the users of train.tsv",
        })
    }
}

/// The users of each part, in file order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts {
    pub(super) train: Vec<User>,
    pub(super) validation: Vec<User>,
    pub(super) test: Vec<User>,
    pub(super) source: ValidationSource,
}

impl Parts {
    /// Checks that no held-out target is in the training data, and that no validation user shows a test target.
    pub(super) fn check(&self, split: Split) -> Result<(), Error> {
        let files =
            [("train.tsv", &self.train), ("validation.tsv", &self.validation), ("test.tsv", &self.test)];
        for (number, (earlier, known)) in files.iter().enumerate() {
            let known: BTreeMap<UserId, &User> = known.iter().map(|user| (user.id, user)).collect();
            for (later, users) in &files[number + 1..] {
                let both = users.iter().filter_map(|user| Some((user, *known.get(&user.id)?)));
                for (user, known) in both {
                    let (user_id, earlier, later) = (user.id, *earlier, *later);
                    if split == Split::Users {
                        return Err(Error::UserInBoth { user: user_id, earlier, later });
                    }
                    let ends_before = known.items.len() < user.items.len();
                    if !ends_before || !user.items.starts_with(&known.items) {
                        return Err(Error::NotEarlier { user: user_id, earlier, later });
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the validation users from the training data alone, the same in every run. Returns the number of users
    /// whose remaining training items are fewer than `min_interactions`, which is at least 2: they are validation users
    /// only.
    pub(super) fn take_validation(&mut self, split: Split, min_interactions: usize) -> Result<usize, Error> {
        let users = self.train.len();
        let too_short = match split {
            Split::Times => {
                self.source = ValidationSource::LastTrainingItems;
                self.validation.clone_from(&self.train);
                for user in &mut self.train {
                    user.items.pop();
                }
                self.train.retain(|user| user.items.len() >= min_interactions);
                users - self.train.len()
            }
            Split::Users => {
                self.source = ValidationSource::TrainingUsers;
                let chosen = chosen_for_validation(&self.train);
                (self.validation, self.train) =
                    std::mem::take(&mut self.train).into_iter().partition(|user| chosen.contains(&user.id));
                0
            }
        };
        if self.train.is_empty() {
            Err(Error::NothingToTrainOn { users, min_interactions })
        } else {
            Ok(too_short)
        }
    }
}

/// Returns the users of `train` who are in no `held_out` part.
pub(super) fn only_trained(train: &[User], held_out: [&[User]; 2]) -> BTreeSet<UserId> {
    let held_out: BTreeSet<UserId> = held_out.into_iter().flatten().map(|user| user.id).collect();
    train.iter().map(|user| user.id).filter(|id| !held_out.contains(id)).collect()
}

/// Returns a tenth of the users, rounded up, chosen by a number that depends on the user's id alone.
fn chosen_for_validation(users: &[User]) -> BTreeSet<UserId> {
    let number = |id: UserId| Stream::new(0, "data/validation users", &[id.0]).next_u64();
    let mut order: Vec<(u64, UserId)> = users.iter().map(|user| (number(user.id), user.id)).collect();
    order.sort_unstable();
    order.truncate(users.len().div_ceil(TRAINING_USERS_PER_VALIDATION_USER));
    order.into_iter().map(|(_, user)| user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ItemId;

    fn user(id: u64, items: &[u64]) -> User {
        User { id: UserId(id), items: items.iter().copied().map(ItemId).collect() }
    }

    fn parts(train: &[User], validation: &[User], test: &[User]) -> Parts {
        let (train, validation, test) = (train.to_vec(), validation.to_vec(), test.to_vec());
        Parts { train, validation, test, source: ValidationSource::File }
    }

    /// A data set with user 1 in two parts, for each pair of parts, with the names of their files.
    fn pairs(earlier: &User, later: &User) -> [(Parts, (&'static str, &'static str)); 3] {
        let (earlier, later) = (std::slice::from_ref(earlier), std::slice::from_ref(later));
        [
            (parts(earlier, later, &[]), ("train.tsv", "validation.tsv")),
            (parts(earlier, &[], later), ("train.tsv", "test.tsv")),
            (parts(&[], earlier, later), ("validation.tsv", "test.tsv")),
        ]
    }

    #[test]
    fn a_user_is_in_one_part_of_a_split_by_users() {
        parts(&[user(1, &[1, 2])], &[user(2, &[1, 2])], &[user(3, &[1, 2])]).check(Split::Users).unwrap();
        for (parts, files) in pairs(&user(1, &[1, 2]), &user(1, &[1, 2, 3])) {
            match parts.check(Split::Users) {
                Err(Error::UserInBoth { user: UserId(1), earlier, later }) => {
                    assert_eq!((earlier, later), files);
                }
                other => panic!("{files:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_part_in_time_ends_before_the_target_of_the_next() {
        let rows = [user(1, &[1, 2]), user(1, &[1, 2, 3]), user(1, &[1, 2, 3, 4])];
        parts(&rows[..1], &rows[1..2], &rows[2..]).check(Split::Times).unwrap();
        for leaking in [&[1, 2, 3][..], &[2, 3], &[1, 2, 3, 4]] {
            for (parts, files) in pairs(&user(1, leaking), &rows[1]) {
                match parts.check(Split::Times) {
                    Err(Error::NotEarlier { user: UserId(1), earlier, later }) => {
                        assert_eq!((earlier, later), files);
                    }
                    other => panic!("{files:?} with {leaking:?}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn the_last_training_item_becomes_the_validation_target() {
        let train = [user(1, &[1, 2, 3, 4]), user(2, &[5, 6, 7])];
        let mut split = parts(&train, &[], &[user(1, &[1, 2, 3, 4, 9])]);
        assert_eq!(split.take_validation(Split::Times, 3).unwrap(), 1, "user 2 has too few items left");
        assert_eq!(split.train, [user(1, &[1, 2, 3])]);
        assert_eq!(split.validation, train);
        split.check(Split::Times).unwrap();
        let found = parts(&train[1..], &[], &[]).take_validation(Split::Times, 3);
        assert!(matches!(found, Err(Error::NothingToTrainOn { users: 1, min_interactions: 3 })));
    }

    #[test]
    fn a_tenth_of_the_training_users_becomes_validation_users() {
        let train: Vec<User> = (0..101).map(|id| user(id, &[1, 2])).collect();
        let mut split = parts(&train, &[], &[]);
        assert_eq!(split.take_validation(Split::Users, 2).unwrap(), 0);
        assert_eq!((split.train.len(), split.validation.len()), (90, 11));
        split.check(Split::Users).unwrap();
        let ids = |users: &[User]| users.iter().map(|user| user.id.0).collect::<Vec<_>>();
        assert!(ids(&split.validation).is_sorted() && ids(&split.train).is_sorted(), "file order");
        // Neither the order of the rows nor the test users matter.
        let mut backwards =
            parts(&train.iter().rev().cloned().collect::<Vec<_>>(), &[], &[user(200, &[1, 2])]);
        backwards.take_validation(Split::Users, 2).unwrap();
        backwards.validation.reverse();
        assert_eq!(backwards.validation, split.validation);
        assert!(parts(&train[..1], &[], &[]).take_validation(Split::Users, 2).is_err());
    }
}
