//! Items and probabilities of the synthetic world.

use podium_grpo::rng::Stream;

use super::names::{LOOKS, THEMES, title};
use super::world::World;
use crate::dataset::{Catalogue, Item};
use crate::ids::ItemId;

/// State of a user: the favourite look and the current theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) look: usize,
    pub(super) theme: usize,
}

/// Index of a look and a theme: `look · themes + theme`.
pub(super) type Cell = usize;

/// Period of a user's interactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// Before the new items appear.
    Training,
    /// After the new items appear.
    HeldOut,
}

/// Existing items outside a user's history.
#[derive(Debug, Clone)]
pub(super) struct Left {
    era: Era,
    /// Number of items per cell.
    counts: Vec<usize>,
    taken: Vec<ItemId>,
}

impl Left {
    /// Records an interaction with `item` of `cell`; a repeated one has no effect.
    pub(super) fn take(&mut self, item: ItemId, cell: Cell) {
        if !self.taken.contains(&item) {
            self.taken.push(item);
            self.counts[cell] -= 1;
        }
    }

    /// Returns whether the user interacted with `item`.
    pub(super) fn has_taken(&self, item: ItemId) -> bool {
        self.taken.contains(&item)
    }

    /// Returns whether any item of `cell` remains.
    fn any(&self, cell: Cell) -> bool {
        self.counts[cell] > 0
    }
}

/// A world with looks and themes assigned to its items.
#[derive(Debug, Clone)]
pub(super) struct Universe {
    pub(super) world: World,
    /// The cell of each item; an item's id is its index.
    cells: Vec<Cell>,
    /// Index of each item within its cell: old items first, in descending popularity.
    ordinals: Vec<usize>,
}

impl Universe {
    /// Assigns looks and themes to the items at random, so that ids do not reveal them.
    pub(super) fn new(world: &World) -> Self {
        let mut dealt: Vec<usize> = (0..world.items()).collect();
        Stream::new(world.seed, "world/catalogue", &[]).shuffle(&mut dealt);
        let (cells, ordinals) = dealt
            .into_iter()
            .map(|place| (place / world.items_per_pair, place % world.items_per_pair))
            .unzip();
        Self { world: world.clone(), cells, ordinals }
    }

    /// Returns the number of old items per cell.
    const fn old_items(&self) -> usize {
        self.world.items_per_pair - self.world.new_items_per_pair
    }

    /// Returns the weight of an item among those of its cell for users of an era; 0 before it appears.
    fn weight(&self, item: ItemId, era: Era) -> f64 {
        let (old, new) = (self.old_items(), self.world.new_items_per_pair);
        let ordinal = self.ordinals[item.0 as usize];
        // Decreasing from 1 for the most popular item.
        let faded = |places: usize| self.world.popularity_skew.powi(-(places as i32));
        match era {
            Era::Training if ordinal < old => faded(ordinal),
            Era::Training => 0.0,
            Era::HeldOut if new == 0 => faded(old - 1 - ordinal),
            Era::HeldOut if ordinal < old => {
                let all: f64 = (0..old).map(faded).sum();
                (1.0 - self.world.new_share) * faded(old - 1 - ordinal) / all
            }
            Era::HeldOut => self.world.new_share / new as f64,
        }
    }

    /// Returns the items of `cell` outside a user's history, with their weights.
    fn free(&self, cell: Cell, left: &Left) -> Vec<(ItemId, f64)> {
        (0..)
            .zip(&self.cells)
            .filter(|&(_, &of)| of == cell)
            .map(|(id, _)| (ItemId(id), self.weight(ItemId(id), left.era)))
            .filter(|&(item, weight)| weight > 0.0 && !left.has_taken(item))
            .collect()
    }

    /// Returns the probability of `item` among the remaining items of its cell.
    pub(super) fn share(&self, item: ItemId, left: &Left) -> f64 {
        let all: f64 = self.free(self.cell(item), left).iter().map(|(_, weight)| weight).sum();
        self.weight(item, left.era) / all
    }

    /// Returns the items with titles and captions.
    pub(super) fn catalogue(&self) -> Catalogue {
        Catalogue::new(self.cells.iter().zip(0..).map(|(&cell, id)| Item {
            id: ItemId(id),
            title: title(id as usize),
            caption: Some(self.describe(cell)),
            interactions: 0,
        }))
    }

    /// Returns the cell of `item`, which must belong to the world.
    pub(super) fn cell(&self, item: ItemId) -> Cell {
        self.cells[item.0 as usize]
    }

    /// Returns whether `item` belongs to the world.
    pub(super) fn contains(&self, item: ItemId) -> bool {
        item.0 < self.cells.len() as u64
    }

    /// Describes look and theme of `cell` in words.
    pub(super) fn describe(&self, cell: Cell) -> String {
        let State { look, theme } = self.state(cell);
        format!("{} {}", LOOKS[look], THEMES[theme])
    }

    /// Returns look and theme of `cell`.
    pub(super) const fn state(&self, cell: Cell) -> State {
        State { look: cell / self.world.themes, theme: cell % self.world.themes }
    }

    /// Returns all states.
    pub(super) fn states(&self) -> impl Iterator<Item = State> + use<> {
        let themes = self.world.themes;
        (0..self.world.looks).flat_map(move |look| (0..themes).map(move |theme| State { look, theme }))
    }

    /// Returns the existing items for a user of an era without interactions.
    pub(super) fn all_left(&self, era: Era) -> Left {
        let cells = self.world.looks * self.world.themes;
        let in_a_cell = match era {
            Era::Training => self.old_items(),
            Era::HeldOut => self.world.items_per_pair,
        };
        Left { era, counts: vec![in_a_cell; cells], taken: Vec::new() }
    }

    /// Returns the probability of each cell for a user in `state`, where cells without remaining items are sampled
    /// again.
    pub(super) fn emission(&self, state: State, left: &Left) -> Vec<f64> {
        let World { looks, themes, p_look, p_theme, .. } = self.world;
        let weights: Vec<f64> = self
            .states()
            .enumerate()
            .map(|(cell, shown)| {
                let look = agree(p_look, state.look == shown.look, looks);
                let theme = agree(p_theme, state.theme == shown.theme, themes);
                if left.any(cell) { look * theme } else { 0.0 }
            })
            .collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    /// Returns the probability of a transition to a given theme, equal to the current one or not.
    pub(super) fn transition(&self, stays: bool) -> f64 {
        agree(1.0 - self.world.p_switch, stays, self.world.themes)
    }

    /// Samples the state of a new user.
    pub(super) fn first_state(&self, stream: &mut Stream) -> State {
        let look = stream.below(self.world.looks as u64) as usize;
        State { look, theme: stream.below(self.world.themes as u64) as usize }
    }

    /// Samples the state before the next interaction.
    pub(super) fn next_state(&self, state: State, stream: &mut Stream) -> State {
        if stream.uniform() >= self.world.p_switch {
            return state;
        }
        let step = 1 + stream.below(self.world.themes as u64 - 1) as usize;
        State { theme: (state.theme + step) % self.world.themes, ..state }
    }

    /// Samples the next item of a user in `state`.
    pub(super) fn draw_item(&self, state: State, left: &Left, stream: &mut Stream) -> ItemId {
        let cell = draw(&self.emission(state, left), stream);
        let free = self.free(cell, left);
        if free.iter().all(|(_, weight)| weight.total_cmp(&free[0].1).is_eq()) {
            return free[stream.below(free.len() as u64) as usize].0;
        }
        let all: f64 = free.iter().map(|(_, weight)| weight).sum();
        let shares: Vec<f64> = free.iter().map(|(_, weight)| weight / all).collect();
        free[draw(&shares, stream)].0
    }
}

/// Returns the probability of one of `values` values: `p` for the agreeing one, the rest shared equally by the others.
fn agree(p: f64, agrees: bool, values: usize) -> f64 {
    if agrees { p } else { (1.0 - p) / (values as f64 - 1.0) }
}

/// Samples an index in proportion to `probabilities`, of which at least one is above 0.
fn draw(probabilities: &[f64], stream: &mut Stream) -> usize {
    let mut point = stream.uniform();
    let mut last = 0;
    for (place, &probability) in
        probabilities.iter().enumerate().filter(|&(_, &probability)| probability > 0.0)
    {
        if point < probability {
            return place;
        }
        point -= probability;
        // Rounding may leave the sampled point beyond the sum.
        last = place;
    }
    last
}
