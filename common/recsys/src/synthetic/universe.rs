//! The world's items and probabilities.

use podium_grpo::rng::Stream;

use super::World;
use crate::dataset::{Catalogue, Item};
use crate::ids::ItemId;

/// Names of looks.
pub(super) const LOOKS: [&str; 12] = [
    "crimson", "azure", "golden", "emerald", "ivory", "violet", "amber", "silver", "scarlet", "teal",
    "coral", "indigo",
];
/// Names of themes.
pub(super) const THEMES: [&str; 12] = [
    "desert", "ocean", "forest", "city", "mountain", "space", "castle", "island", "jungle", "harbor",
    "village", "canyon",
];

/// What moves a user: the favourite look and the current theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) look: usize,
    pub(super) theme: usize,
}

/// Number of a look and a theme that items share: `look · themes + theme`.
pub(super) type Cell = usize;

/// What a user has not had yet.
#[derive(Debug, Clone)]
pub(super) struct Left {
    /// Of each cell, how many items.
    counts: Vec<usize>,
    taken: Vec<ItemId>,
}

impl Left {
    /// Notes that the user had `item` of `cell`; having it again changes nothing.
    pub(super) fn take(&mut self, item: ItemId, cell: Cell) {
        if !self.taken.contains(&item) {
            self.taken.push(item);
            self.counts[cell] -= 1;
        }
    }

    /// Whether the user had `item`.
    pub(super) fn has_taken(&self, item: ItemId) -> bool {
        self.taken.contains(&item)
    }

    /// How many items of `cell` the user has not had.
    pub(super) fn count(&self, cell: Cell) -> usize {
        self.counts[cell]
    }
}

/// A world whose items have been given their looks and themes.
#[derive(Debug, Clone)]
pub(super) struct Universe {
    pub(super) world: World,
    /// The cell of each item; an item's id is its place.
    cells: Vec<Cell>,
}

impl Universe {
    /// Deals looks and themes out to the items, so that an id tells nothing.
    pub(super) fn new(world: &World) -> Self {
        let mut cells: Vec<Cell> = (0..world.items()).map(|item| item / world.items_per_pair).collect();
        Stream::new(world.seed, "world/catalogue", &[]).shuffle(&mut cells);
        Self { world: world.clone(), cells }
    }

    /// The items with titles and captions.
    pub(super) fn catalogue(&self) -> Catalogue {
        Catalogue::new(self.cells.iter().zip(0..).map(|(&cell, id)| Item {
            id: ItemId(id),
            title: title(id as usize),
            caption: Some(self.describe(cell)),
            interactions: 0,
        }))
    }

    /// The cell of `item`, which must be one of the world's.
    pub(super) fn cell(&self, item: ItemId) -> Cell {
        self.cells[item.0 as usize]
    }

    /// Whether `item` is one of the world's.
    pub(super) fn contains(&self, item: ItemId) -> bool {
        item.0 < self.cells.len() as u64
    }

    /// Look and theme of `cell` in words.
    pub(super) fn describe(&self, cell: Cell) -> String {
        let State { look, theme } = self.state(cell);
        format!("{} {}", LOOKS[look], THEMES[theme])
    }

    /// Look and theme of `cell`.
    pub(super) const fn state(&self, cell: Cell) -> State {
        State { look: cell / self.world.themes, theme: cell % self.world.themes }
    }

    /// All states there are.
    pub(super) fn states(&self) -> impl Iterator<Item = State> + use<> {
        let themes = self.world.themes;
        (0..self.world.looks).flat_map(move |look| (0..themes).map(move |theme| State { look, theme }))
    }

    /// What a user has not had who had nothing.
    pub(super) fn all_left(&self) -> Left {
        let cells = self.world.looks * self.world.themes;
        Left { counts: vec![self.world.items_per_pair; cells], taken: Vec::new() }
    }

    /// Probability of each cell for a user in `state`, those with nothing left drawn again.
    pub(super) fn emission(&self, state: State, left: &Left) -> Vec<f64> {
        let World { looks, themes, p_look, p_theme, .. } = self.world;
        let weights: Vec<f64> = self
            .states()
            .enumerate()
            .map(|(cell, shown)| {
                let look = agree(p_look, state.look == shown.look, looks);
                let theme = agree(p_theme, state.theme == shown.theme, themes);
                if left.count(cell) > 0 { look * theme } else { 0.0 }
            })
            .collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    /// Probability that a theme is followed by another one, or stays.
    pub(super) fn transition(&self, stays: bool) -> f64 {
        agree(1.0 - self.world.p_switch, stays, self.world.themes)
    }

    /// The state of a new user.
    pub(super) fn first_state(&self, stream: &mut Stream) -> State {
        let look = stream.below(self.world.looks as u64) as usize;
        State { look, theme: stream.below(self.world.themes as u64) as usize }
    }

    /// The state before the next interaction.
    pub(super) fn next_state(&self, state: State, stream: &mut Stream) -> State {
        if stream.uniform() >= self.world.p_switch {
            return state;
        }
        let step = 1 + stream.below(self.world.themes as u64 - 1) as usize;
        State { theme: (state.theme + step) % self.world.themes, ..state }
    }

    /// The next item of a user in `state`.
    pub(super) fn draw_item(&self, state: State, left: &Left, stream: &mut Stream) -> ItemId {
        let cell = draw(&self.emission(state, left), stream);
        let free: Vec<ItemId> = (0..)
            .zip(&self.cells)
            .map(|(id, &of)| (ItemId(id), of))
            .filter(|&(item, of)| of == cell && !left.has_taken(item))
            .map(|(item, _)| item)
            .collect();
        free[stream.below(free.len() as u64) as usize]
    }
}

/// Probability of one value among `values`: `p` for the agreeing one, the rest shared equally by the others.
fn agree(p: f64, agrees: bool, values: usize) -> f64 {
    if agrees { p } else { (1.0 - p) / (values as f64 - 1.0) }
}

/// A place drawn in proportion to `probabilities`, of which at least one is above 0.
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
        // Rounding may leave a point beyond the sum.
        last = place;
    }
    last
}

/// A made-up name, another one for each item.
fn title(item: usize) -> String {
    const SYLLABLES: [&str; 30] = [
        "ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su", "ta", "ve", "zi", "ko", "ru", "la", "me",
        "ni", "po", "tu", "da", "be", "li", "mo", "fu", "ra", "se", "ki", "no", "vu",
    ];
    let (first, rest) = (SYLLABLES[item % 30], item / 30);
    let (second, third) = (SYLLABLES[(rest + 7 * item) % 30], SYLLABLES[rest % 30]);
    let mut letters = first.chars();
    let capital = letters.next().map(|letter| letter.to_ascii_uppercase()).into_iter();
    let name: String = capital.chain(letters).chain(second.chars()).chain(third.chars()).collect();
    // Beyond 900 items syllables repeat, and a number tells them apart.
    if rest < 30 { name } else { format!("{name} {}", rest / 30 + 1) }
}
