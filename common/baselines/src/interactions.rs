//! The interactions of a data set as positions in its catalogue, in three parts.

use std::collections::{BTreeMap, BTreeSet};

use podium_grpo::rng::Stream;
use podium_recsys::{Catalogue, Dataset, ItemId, User, UserId};

/// Maximum number of validation users; a random sample if there are more.
const MOST_VALIDATION_USERS: usize = 10_000;

/// A user's interactions in the training part, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The user.
    pub user: UserId,
    /// Positions of the items in the catalogue.
    pub items: Vec<i64>,
}

/// A user whose next item is to be predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The user.
    pub user: UserId,
    /// Positions of all items before the target, oldest first; not empty.
    pub history: Vec<i64>,
    /// Position of the target.
    pub target: i64,
}

/// A data set in three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interactions {
    /// Number of items of the catalogue.
    pub items: usize,
    /// The interactions to fit, by user.
    pub train: Vec<Sequence>,
    /// The cases by which settings and durations are chosen.
    pub validation: Vec<Case>,
    /// The cases of the evaluation, in the order of the data set. Training never reads their targets.
    pub test: Vec<Case>,
}

impl Interactions {
    /// Divides a data set. `seed` selects validation users if there are too many.
    pub fn of(dataset: &Dataset, seed: u64) -> Self {
        let catalogue = &dataset.catalogue;
        let (train, mut validation) = parts(dataset);
        if validation.len() > MOST_VALIDATION_USERS {
            Stream::new(seed, "baselines/validation users", &[]).shuffle(&mut validation);
            validation.truncate(MOST_VALIDATION_USERS);
        }
        Self {
            items: catalogue.len(),
            train: train
                .into_iter()
                .map(|(user, items)| Sequence { user, items: positions(catalogue, items) })
                .collect(),
            validation: validation.iter().map(|user| Case::of(catalogue, user)).collect(),
            test: dataset.test.iter().map(|user| Case::of(catalogue, user)).collect(),
        }
    }

    /// Returns the distinct items of each training sequence in ascending order.
    pub(crate) fn distinct(&self) -> Vec<Vec<i64>> {
        self.train.iter().map(|sequence| distinct(&sequence.items)).collect()
    }

    /// Returns the position of each training user in [`Self::train`].
    pub(crate) fn users(&self) -> BTreeMap<UserId, i64> {
        self.train.iter().zip(0..).map(|(sequence, position)| (sequence.user, position)).collect()
    }
}

impl Case {
    fn of(catalogue: &Catalogue, user: &User) -> Self {
        let mut history = positions(catalogue, &user.items);
        let target = history.pop().expect("a user has at least two items");
        Self { user: user.id, history, target }
    }
}

/// The training part by user, and the validation part.
type Parts<'a> = (Vec<(UserId, &'a [ItemId])>, Vec<User>);

/// Returns the training and the validation part of a data set. If it has no validation part, the last item of each training
/// row is its user's validation target.
fn parts(dataset: &Dataset) -> Parts<'_> {
    let (held_out, validation) =
        if dataset.validation.is_empty() { (1, &dataset.train) } else { (0, &dataset.validation) };
    let train = dataset.train.iter().map(|user| (user.id, &user.items[..user.items.len() - held_out]));
    (train.collect(), validation.clone())
}

fn positions(catalogue: &Catalogue, items: &[ItemId]) -> Vec<i64> {
    // The reader refuses items outside the catalogue.
    items.iter().filter_map(|&item| catalogue.position(item)).map(|position| position as i64).collect()
}

/// Returns the distinct items in ascending order.
pub(crate) fn distinct(items: &[i64]) -> Vec<i64> {
    items.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns a uniform item outside `taken`, which is sorted and shorter than the catalogue.
pub(crate) fn other_item(items: usize, taken: &[i64], stream: &mut Stream) -> i64 {
    loop {
        let item = stream.below(items as u64) as i64;
        if taken.binary_search(&item).is_err() {
            return item;
        }
    }
}
