//! The description of the world.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::names::{LOOKS, THEMES};

/// File with the description of the world beside its data, which [`Oracle::open`](super::Oracle::open) reads.
pub const WORLD_FILE: &str = "world.json";
/// Smallest id of test users; ids of training users are below.
pub(super) const TEST_FROM: u64 = 1_000_000;
/// Smallest id of validation users; ids of test users are below.
pub(super) const VALIDATION_FROM: u64 = 2 * TEST_FROM;

/// The embedded data set: `[world]` of the run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct World {
    /// Seed of the catalogue, the users and the teacher. Independent of the run's seed, since the embedded model is
    /// trained for one catalogue.
    pub seed: u64,
    /// Number of looks: 2 to 12.
    pub looks: usize,
    /// Number of themes: 2 to 12.
    pub themes: usize,
    /// Number of items per look and theme.
    pub items_per_pair: usize,
    /// How many of these are new: only validation and test users interact with them. Fewer than `items_per_pair`.
    pub new_items_per_pair: usize,
    /// Weight of the new items among all items of a look and theme, for a held-out user without interactions with them.
    pub new_share: f64,
    /// Popularity ratio of consecutive old items of a look and theme, for training users; for held-out users the order
    /// is reversed. 1: equal popularity.
    pub popularity_skew: f64,
    /// Number of interactions before the target.
    pub history: usize,
    /// Probability that a user's theme changes before an interaction.
    pub p_switch: f64,
    /// Probability that an item has the user's favourite look.
    pub p_look: f64,
    /// Probability that an item has the user's current theme.
    pub p_theme: f64,
    /// Probability that the teacher takes the theme from the older half of the history rather than from any part of it.
    pub teacher_stale: f64,
    /// Number of training users.
    pub train_users: u64,
    /// Number of validation users: the run chooses its best version by them.
    pub validation_users: u64,
    /// Number of test users.
    pub test_users: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            seed: 0,
            looks: 6,
            themes: 8,
            items_per_pair: 4,
            new_items_per_pair: 0,
            new_share: 0.5,
            popularity_skew: 1.0,
            history: 8,
            p_switch: 0.25,
            p_look: 0.85,
            p_theme: 0.98,
            teacher_stale: 0.7,
            train_users: 4_000,
            validation_users: 600,
            test_users: 600,
        }
    }
}

impl World {
    /// Returns the number of items in the catalogue.
    pub const fn items(&self) -> usize {
        self.looks * self.themes * self.items_per_pair
    }

    /// Validates the description of the world.
    pub fn check(&self) -> Result<(), Error> {
        let fail = |field, found, expected| Err(Error::Field { field, found, expected });
        if !(2..=LOOKS.len()).contains(&self.looks) {
            return fail("looks", self.looks as f64, "2 to 12");
        }
        if !(2..=THEMES.len()).contains(&self.themes) {
            return fail("themes", self.themes as f64, "2 to 12");
        }
        if !(1..=100).contains(&self.items_per_pair) {
            return fail("items_per_pair", self.items_per_pair as f64, "1 to 100");
        }
        if self.new_items_per_pair >= self.items_per_pair {
            let found = self.new_items_per_pair as f64;
            return fail("new_items_per_pair", found, "fewer than `world.items_per_pair`");
        }
        let old_items = self.looks * self.themes * (self.items_per_pair - self.new_items_per_pair);
        if !(1..old_items).contains(&self.history) {
            return fail("history", self.history as f64, "at least 1 and below the number of old items");
        }
        if !(1.0..=100.0).contains(&self.popularity_skew) {
            return fail("popularity_skew", self.popularity_skew, "1 to 100");
        }
        for (field, p) in [("p_switch", self.p_switch), ("teacher_stale", self.teacher_stale)] {
            if !(0.0..=1.0).contains(&p) {
                return fail(field, p, "a probability");
            }
        }
        for (field, p) in [("p_look", self.p_look), ("p_theme", self.p_theme), ("new_share", self.new_share)]
        {
            if !(p > 0.0 && p < 1.0) {
                return fail(field, p, "a probability above 0 and below 1");
            }
        }
        for (field, users) in [
            ("train_users", self.train_users),
            ("validation_users", self.validation_users),
            ("test_users", self.test_users),
        ] {
            if !(1..=TEST_FROM).contains(&users) {
                return fail(field, users as f64, "1 to 1000000");
            }
        }
        Ok(())
    }
}
