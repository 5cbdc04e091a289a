//! Candidate lists: the target among items outside the user's whole history, in random order.
//!
//! Training samples new lists in every epoch. Evaluation uses fixed lists that do not depend on the run's seed, so that
//! policies of different runs are compared on the same lists. Negatives of a user are never items of the user's row in
//! the same part. The rows of later parts are not consulted: a list of training that avoided the targets of validation
//! and test would reveal them.

use std::collections::{BTreeMap, BTreeSet};

use podium_grpo::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::{Catalogue, Dataset, HeldOut, Item, User};
use crate::ids::{ItemId, UserId};

/// Sampling of candidate lists: `[candidates]` of the run file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Length of a candidate list, including the target. At least 2.
    pub count: usize,
    /// How the other items are sampled.
    pub negatives: Negatives,
    /// Seed of the candidate lists of evaluation, which do not depend on the run's seed.
    pub evaluation_seed: u64,
    /// Whether items without training interactions may be negatives in training. They are never a target there, so that
    /// a policy trained with them as negatives learns to rank new items last. Does not apply to supplied negatives.
    pub untouched_in_training: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { count: 10, negatives: Negatives::Uniform, evaluation_seed: 0, untouched_in_training: true }
    }
}

/// Distribution of negatives, which are sampled without replacement from the items outside the user's whole history in the
/// part that the list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// All items are equally likely.
    Uniform,
    /// The probability of an item is proportional to 1 + its interactions in the training data, so that popularity
    /// alone does not identify the target.
    Popularity,
    /// Only items in the user's row of `<name>_negatives.tsv`, all equally likely.
    Supplied,
}

/// An error while sampling a candidate list.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A list of fewer than two candidates.
    #[error("`candidates.count` is {0}, expected at least 2: the target and at least one other item")]
    Count(usize),
    /// The catalogue is too small.
    #[error(
        "{user} has {available} items to sample negatives from, expected {needed}: lower `candidates.count`"
    )]
    TooFewItems {
        /// The user of the list.
        user: UserId,
        /// Number of required negatives.
        needed: usize,
        /// Number of items outside the user's history.
        available: usize,
    },
    /// A user has too few supplied negatives.
    #[error(
        "{user} has {available} supplied negatives, expected at least {needed}: add to their row of the negatives file, or \
         lower `candidates.count`"
    )]
    TooFewSupplied {
        /// The user of the list.
        user: UserId,
        /// Number of required negatives.
        needed: usize,
        /// Number of supplied negatives.
        available: usize,
    },
}

/// Purpose of a candidate list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Training in an epoch, counted from 0.
    Training {
        /// The epoch.
        epoch: u64,
    },
    /// Evaluation; several samples show the effect of the negatives.
    Evaluation {
        /// The part of the user's row.
        part: HeldOut,
        /// Index of the candidate sample, counted from 0.
        draw: u64,
    },
}

/// Samples candidate lists from one data set.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: Options,
    seed: u64,
    items: Pool,
    /// The items for training, if they differ.
    touched: Option<Pool>,
    supplied: BTreeMap<UserId, Vec<ItemId>>,
}

/// Items to sample from.
#[derive(Debug, Clone)]
struct Pool {
    items: Vec<ItemId>,
    weights: Vec<u64>,
    /// `cumulative[i]` is the weight of items `0..=i`.
    cumulative: Vec<u64>,
}

impl Sampler {
    /// Creates the sampler of a run over `dataset` with `seed`.
    pub fn of(options: &Options, dataset: &Dataset, seed: u64) -> Result<Self, Error> {
        let mut sampler = Self::new(options, &dataset.catalogue, seed)?;
        sampler.supplied.clone_from(&dataset.negatives);
        Ok(sampler)
    }

    fn new(options: &Options, catalogue: &Catalogue, seed: u64) -> Result<Self, Error> {
        if options.count < 2 {
            return Err(Error::Count(options.count));
        }
        Ok(Self {
            options: options.clone(),
            seed,
            items: Pool::new(catalogue.items().iter(), options.negatives),
            touched: (!options.untouched_in_training).then(|| {
                Pool::new(catalogue.items().iter().filter(|item| item.interactions > 0), options.negatives)
            }),
            supplied: BTreeMap::new(),
        })
    }

    /// Returns the shuffled candidates for the target at `position` of `user`'s items: the target, and items outside
    /// the user's whole history.
    pub fn draw(&self, user: &User, position: usize, purpose: Purpose) -> Result<Vec<ItemId>, Error> {
        let mut stream = match purpose {
            Purpose::Training { epoch } if position + 1 == user.items.len() => {
                Stream::new(self.seed, "candidates/training", &[epoch, user.id.0])
            }
            Purpose::Training { epoch } => {
                Stream::new(self.seed, "candidates/training", &[epoch, user.id.0, position as u64])
            }
            Purpose::Evaluation { part, draw } => {
                let domain = match part {
                    HeldOut::Validation => "candidates/validation",
                    HeldOut::Test => "candidates/evaluation",
                };
                Stream::new(self.options.evaluation_seed, domain, &[draw, user.id.0])
            }
        };
        let needed = self.options.count - 1;
        let negatives = if self.options.negatives == Negatives::Supplied {
            self.supplied(user, needed, &mut stream)?
        } else {
            let touched = self.touched.as_ref().filter(|_| matches!(purpose, Purpose::Training { .. }));
            touched.unwrap_or(&self.items).negatives(user, needed, &mut stream)?
        };
        let mut list = vec![user.items[position]];
        list.extend(negatives);
        stream.shuffle(&mut list);
        Ok(list)
    }

    /// Samples from the negatives supplied for `user`.
    fn supplied(&self, user: &User, needed: usize, stream: &mut Stream) -> Result<Vec<ItemId>, Error> {
        let mut list = self.supplied.get(&user.id).cloned().unwrap_or_default();
        if list.len() < needed {
            return Err(Error::TooFewSupplied { user: user.id, needed, available: list.len() });
        }
        stream.shuffle(&mut list);
        list.truncate(needed);
        Ok(list)
    }
}

impl Pool {
    fn new<'a>(items: impl Iterator<Item = &'a Item>, negatives: Negatives) -> Self {
        let (items, weights): (Vec<ItemId>, Vec<u64>) = items
            .map(|item| match negatives {
                Negatives::Uniform | Negatives::Supplied => (item.id, 1),
                Negatives::Popularity => (item.id, item.interactions + 1),
            })
            .unzip();
        let cumulative = weights
            .iter()
            .scan(0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        Self { items, weights, cumulative }
    }

    /// Returns items outside the whole history of `user`.
    fn negatives(&self, user: &User, needed: usize, stream: &mut Stream) -> Result<Vec<ItemId>, Error> {
        let mut taken: BTreeSet<usize> =
            user.items.iter().filter_map(|item| self.items.binary_search(item).ok()).collect();
        let available = self.items.len() - taken.len();
        if available < needed {
            return Err(Error::TooFewItems { user: user.id, needed, available });
        }

        let total = self.cumulative.last().copied().unwrap_or(0);
        let mut free = total - taken.iter().map(|&position| self.weights[position]).sum::<u64>();
        let mut list = Vec::with_capacity(needed);
        for _ in 0..needed {
            // Rejection sampling is fast while most of the weight is free; otherwise walk over the free items.
            let position = if free.saturating_mul(2) >= total {
                self.draw_again_until_free(&taken, total, stream)
            } else {
                self.walk_over_free(&taken, stream.below(free))
            };
            free -= self.weights[position];
            taken.insert(position);
            list.push(self.items[position]);
        }
        Ok(list)
    }

    fn draw_again_until_free(&self, taken: &BTreeSet<usize>, total: u64, stream: &mut Stream) -> usize {
        loop {
            let point = stream.below(total);
            let position = self.cumulative.partition_point(|&sum| sum <= point);
            if !taken.contains(&position) {
                return position;
            }
        }
    }

    fn walk_over_free(&self, taken: &BTreeSet<usize>, mut point: u64) -> usize {
        for (position, &weight) in self.weights.iter().enumerate() {
            if taken.contains(&position) {
                continue;
            }
            if point < weight {
                return position;
            }
            point -= weight;
        }
        unreachable!("the point lies within the weight of the free items")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn catalogue(interactions: &[u64]) -> Catalogue {
        Catalogue::new((0..).zip(interactions).map(|(id, &interactions)| Item {
            id: ItemId(id),
            title: format!("Title {id}"),
            caption: None,
            interactions,
        }))
    }

    fn user(items: &[u64]) -> User {
        User { id: UserId(7), items: items.iter().copied().map(ItemId).collect() }
    }

    const EPOCH: Purpose = Purpose::Training { epoch: 0 };

    #[test]
    fn lists_depend_on_epoch_and_seed_except_in_evaluation() {
        let catalogue = catalogue(&[0; 200]);
        let sampler = |seed| Sampler::new(&Options::default(), &catalogue, seed).unwrap();
        let user = user(&[1, 2, 3]);
        let draw = |seed, purpose| sampler(seed).draw(&user, user.items.len() - 1, purpose).unwrap();
        assert_eq!(draw(1, EPOCH), draw(1, EPOCH));
        assert_ne!(draw(1, EPOCH), draw(2, EPOCH));
        assert_ne!(draw(1, EPOCH), draw(1, Purpose::Training { epoch: 1 }));
        let held_out = |part, draw| Purpose::Evaluation { part, draw };
        let test = held_out(HeldOut::Test, 0);
        assert_eq!(draw(1, test), draw(2, test));
        assert_ne!(draw(1, test), draw(1, held_out(HeldOut::Test, 1)));
        assert_ne!(draw(1, test), draw(1, held_out(HeldOut::Validation, 0)));
    }

    #[test]
    fn popular_items_are_sampled_in_proportion() {
        let catalogue = catalogue(&[0, 0, 8, 0, 98]);
        let options = Options { count: 2, negatives: Negatives::Popularity, ..Options::default() };
        let sampler = Sampler::new(&options, &catalogue, 3).unwrap();
        let user = user(&[0, 1]);
        let mut counts = [0_u32; 5];
        for epoch in 0..11_000 {
            for item in sampler.draw(&user, user.items.len() - 1, Purpose::Training { epoch }).unwrap() {
                counts[item.0 as usize] += 1;
            }
        }
        // Free weights: 9 for item 2, 1 for item 3, 99 for item 4.
        let share = |item: usize| f64::from(counts[item]) / 11_000.0;
        assert!((share(2) - 9.0 / 109.0).abs() < 0.01, "{counts:?}");
        assert!((share(3) - 1.0 / 109.0).abs() < 0.005, "{counts:?}");
        assert_eq!(counts[0], 0);
    }

    #[test]
    fn untouched_items_can_be_excluded_from_training() {
        let catalogue = catalogue(&[[3, 0]; 30].concat());
        let drawn = |untouched_in_training, purpose| {
            let options = Options { untouched_in_training, ..Options::default() };
            let sampler = Sampler::new(&options, &catalogue, 4).unwrap();
            let list = sampler.draw(&user(&[0, 2, 4]), 2, purpose).unwrap();
            list.into_iter().filter(|item| item.0 % 2 == 1).count()
        };
        let held_out = Purpose::Evaluation { part: HeldOut::Test, draw: 0 };
        assert_eq!(drawn(false, EPOCH), 0);
        assert!(drawn(true, EPOCH) > 0);
        assert!(drawn(false, held_out) > 0 && drawn(false, held_out) == drawn(true, held_out));
    }

    #[test]
    fn the_target_is_at_every_position_equally_often() {
        let catalogue = catalogue(&[0; 50]);
        let sampler = Sampler::new(&Options::default(), &catalogue, 5).unwrap();
        let user = user(&[1, 2]);
        let mut counts = [0_u32; 10];
        for epoch in 0..10_000 {
            let list = sampler.draw(&user, user.items.len() - 1, Purpose::Training { epoch }).unwrap();
            counts[list.iter().position(|&item| item == ItemId(2)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|&count| (900..1_100).contains(&count)), "{counts:?}");
    }

    #[test]
    fn impossible_lists_are_rejected() {
        let catalogue = catalogue(&[0; 10]);
        let sampler = Sampler::new(&Options::default(), &catalogue, 0).unwrap();
        assert!(matches!(
            sampler.draw(&user(&[1, 2]), 1, EPOCH),
            Err(Error::TooFewItems { needed: 9, available: 8, .. })
        ));
        let options = Options { count: 1, ..Options::default() };
        assert!(matches!(Sampler::new(&options, &catalogue, 0), Err(Error::Count(1))));
    }

    #[test]
    fn supplied_negatives_come_from_the_users_row() {
        let options = Options { count: 3, negatives: Negatives::Supplied, ..Options::default() };
        let mut sampler = Sampler::new(&options, &catalogue(&[0; 30]), 1).unwrap();
        let user = user(&[1, 2]);
        assert!(matches!(
            sampler.draw(&user, user.items.len() - 1, EPOCH),
            Err(Error::TooFewSupplied { needed: 2, available: 0, .. })
        ));
        sampler.supplied.insert(user.id, [20, 21, 22].map(ItemId).into());
        let mut drawn = BTreeSet::new();
        for epoch in 0..50 {
            let list = sampler.draw(&user, user.items.len() - 1, Purpose::Training { epoch }).unwrap();
            assert!(list.len() == 3 && list.contains(&ItemId(2)), "{list:?}");
            drawn.extend(list);
        }
        assert_eq!(drawn, [2, 20, 21, 22].map(ItemId).into());
    }

    proptest! {
        #[test]
        fn negatives_are_distinct_and_outside_the_whole_history(
            interactions in prop::collection::vec(0_u64..1_000, 30..60),
            history in prop::collection::vec(0_u64..30, 2..20),
            popularity: bool,
            epoch: u64,
        ) {
            let catalogue = catalogue(&interactions);
            let negatives = if popularity { Negatives::Popularity } else { Negatives::Uniform };
            let options = Options { count: 10, negatives, ..Options::default() };
            let user = user(&history);
            let list = Sampler::new(&options, &catalogue, 1)
                .unwrap()
                .draw(&user, user.items.len() - 1, Purpose::Training { epoch })
                .unwrap();
            let distinct: BTreeSet<ItemId> = list.iter().copied().collect();
            prop_assert_eq!(distinct.len(), 10);
            let known: Vec<ItemId> = list.into_iter().filter(|item| user.items.contains(item)).collect();
            prop_assert_eq!(known, vec![user.target()]);
        }
    }
}
