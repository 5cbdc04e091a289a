//! Beliefs of an ideal observer, and thereby the best result that any ranker can reach.
//!
//! The world is a hidden Markov model with the states (favourite look, current theme), so the forward algorithm
//! (Rabiner 1989, section III.A) gives the exact probability of every next item after a history. Negatives are
//! sampled uniformly from the items outside the user's history, including new ones, independently of the target.
//! Given the candidates, the probability of each is that of coming next, normalised over the list. Ranking by it
//! maximises every metric that decreases with the rank, and its expected value is computed exactly, not by
//! simulation.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use super::error::Error;
use super::universe::{Era, Left, Universe};
use super::world::{WORLD_FILE, World};
use crate::ids::ItemId;
use crate::ranking::Metric;

/// The optimal ranker.
#[derive(Debug, Clone)]
pub struct Oracle {
    universe: Universe,
}

/// The best ranking of a candidate list.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The candidates, most probable first; ties keep the order of the list.
    pub ranking: Vec<ItemId>,
    /// Probability that each item is the target, in the order of the ranking.
    pub posterior: Vec<f64>,
}

impl Best {
    /// Returns the expected value of `metric` for the first `list_length` items: the maximum for any ranker.
    pub fn expected(&self, metric: Metric, list_length: usize) -> f64 {
        (1..).zip(&self.posterior).take(list_length).map(|(rank, p)| p * metric.value(Some(rank))).sum()
    }
}

#[derive(Deserialize)]
struct Description {
    world: World,
}

impl Oracle {
    /// Creates the oracle of the data set that [`super::generate()`] produces for `world`.
    pub fn new(world: &World) -> Result<Self, Error> {
        world.check()?;
        Ok(Self { universe: Universe::new(world) })
    }

    /// Loads the oracle of the data folder `dir`; `None` if that is not an embedded data set.
    pub fn open(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(WORLD_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let description: Description =
            serde_json::from_slice(&bytes).map_err(|source| Error::Description { path, source })?;
        Self::new(&description.world).map(Some)
    }

    /// Returns the best ranking of `candidates`, with uniformly sampled negatives, after the whole `history` of a
    /// held-out user.
    ///
    /// Unknown items are ignored in a history and ranked last.
    pub fn best(&self, history: &[ItemId], candidates: &[ItemId]) -> Best {
        let universe = &self.universe;
        let (belief, left) = self.filter(history);
        let mut cells = vec![0.0; belief.len()];
        for (state, &believed) in universe.states().zip(&belief) {
            for (cell, p) in cells.iter_mut().zip(universe.emission(state, &left)) {
                *cell += believed * p;
            }
        }
        let next = |item: ItemId| {
            if !universe.contains(item) || left.has_taken(item) {
                return 0.0;
            }
            cells[universe.cell(item)] * universe.share(item, &left)
        };
        let mut ranked: Vec<(ItemId, f64)> = candidates.iter().map(|&item| (item, next(item))).collect();
        ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let total: f64 = ranked.iter().map(|(_, p)| p).sum();
        let share = |p: f64| if total > 0.0 { p / total } else { 1.0 / candidates.len() as f64 };
        Best {
            posterior: ranked.iter().map(|&(_, p)| share(p)).collect(),
            ranking: ranked.into_iter().map(|(item, _)| item).collect(),
        }
    }

    /// Returns the probability of each state before the interaction after `history`, and the remaining items.
    fn filter(&self, history: &[ItemId]) -> (Vec<f64>, Left) {
        let universe = &self.universe;
        let states = universe.world.looks * universe.world.themes;
        let mut belief = vec![1.0 / states as f64; states];
        let mut left = universe.all_left(Era::HeldOut);
        for &item in history.iter().filter(|&&item| universe.contains(item)) {
            let cell = universe.cell(item);
            for (believed, state) in belief.iter_mut().zip(universe.states()) {
                *believed *= universe.emission(state, &left)[cell];
            }
            left.take(item, cell);
            belief = self.after_a_switch(&normalised(belief));
        }
        (belief, left)
    }

    /// Returns the belief after a possible change of theme.
    fn after_a_switch(&self, belief: &[f64]) -> Vec<f64> {
        let (stays, switches) = (self.universe.transition(true), self.universe.transition(false));
        belief
            .chunks(self.universe.world.themes)
            .flat_map(|themes| {
                let all: f64 = themes.iter().sum();
                themes.iter().map(move |&here| here * stays + (all - here) * switches)
            })
            .collect()
    }
}

fn normalised(mut belief: Vec<f64>) -> Vec<f64> {
    let total: f64 = belief.iter().sum();
    if total > 0.0 {
        for believed in &mut belief {
            *believed /= total;
        }
    }
    belief
}
