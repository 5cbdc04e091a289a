//! The embedded data set: a small synthetic world with a known best possible ranking.
//!
//! Every item has a look and a theme. Its caption names them; its id and title do not reveal them. A user has
//! a constant favourite look and a current theme that drifts: before each interaction after the first, the
//! theme changes to another one with probability `p_switch`. The next item has the favourite look with
//! probability `p_look` and the current theme with probability `p_theme`, otherwise another one at random.
//! Among the items of that look and theme that are new to the user, each is sampled in proportion to its
//! weight. A look and theme without new items is sampled again.
//!
//! The catalogue renews itself: `new_items_per_pair` of the items of each look and theme appear after the
//! last training interaction. Training users interact only with old items, some far more often than others
//! (`popularity_skew`). Held-out users also interact with new items (`new_share`), and prefer the old items
//! that were least popular in training, so popularity is misleading.
//!
//! This determines exactly the beliefs of an ideal observer of held-out users ([`Oracle`]). The reasoning in
//! the training data comes from a teacher that relies too much on the older part of the history. A policy
//! fine-tuned on it gives well-formed answers and ranks better than chance, and reinforcement learning can
//! improve on it. Everything is a function of [`World`].

mod oracle;
mod teacher;
mod universe;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use podium_grpo::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use oracle::{Best, Oracle};
pub use words::words;

use crate::completion::{self, Layout};
use crate::dataset::write::{file, pretty};
use crate::dataset::{self, Dataset, Report, TrainingTargets, User};
use crate::ids::{ItemId, UserId};
use crate::{prompt, task};
use universe::{Era, LOOKS, THEMES, Universe};

/// File with the description of the world beside its data, which [`Oracle::open`] reads.
pub const WORLD_FILE: &str = "world.json";
/// Smallest id of held-out users; ids of training users are below.
const HELD_OUT_FROM: u64 = 1_000_000;

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
    /// How many of these are new: only held-out users interact with them. Fewer than `items_per_pair`.
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
    /// Number of held-out users.
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
            test_users: 600,
        }
    }
}

/// An error while generating or reading the embedded data set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An invalid value in the description of the world.
    #[error("`world.{field}` is {found}, expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        found: f64,
        /// The permitted values.
        expected: &'static str,
    },
    /// A file cannot be written.
    #[error("cannot write the embedded data set")]
    Write(#[from] dataset::Error),
    /// The folder cannot be created.
    #[error("cannot create {}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The description of the world cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The description of the world is malformed.
    #[error("{}: expected the description of an embedded data set", .path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Error of the parser.
        source: serde_json::Error,
    },
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
        for (field, users) in [("train_users", self.train_users), ("test_users", self.test_users)] {
            if !(1..=HELD_OUT_FROM).contains(&users) {
                return fail(field, users as f64, "1 to 1000000");
            }
        }
        Ok(())
    }
}

/// Generates the data set of `world`, named `embedded`.
///
/// Held-out users do not depend on `train_users`.
pub fn generate(world: &World) -> Result<Dataset, Error> {
    world.check()?;
    let universe = Universe::new(world);
    let user = |era: Era| {
        let universe = &universe;
        move |id: u64| User { id: UserId(id), items: interactions(universe, era, id) }
    };
    let train: Vec<User> = (0..world.train_users).map(user(Era::Training)).collect();
    let held_out = HELD_OUT_FROM..HELD_OUT_FROM + world.test_users;
    let test: Vec<User> = held_out.map(user(Era::HeldOut)).collect();
    let reasoning = train
        .iter()
        .map(|user| (user.id, teacher::reason(&universe, user.id, user.history(world.history))))
        .collect();
    let mut catalogue = universe.catalogue();
    catalogue.count_interactions(&train);
    Ok(Dataset {
        name: "embedded".to_owned(),
        catalogue,
        train,
        test,
        reasoning,
        negatives: BTreeMap::new(),
        min_interactions: world.history + 1,
        max_history: world.history,
        training_targets: TrainingTargets::Last,
        report: Report::default(),
    })
}

/// Samples the interactions of a user: history and target.
fn interactions(universe: &Universe, era: Era, user: u64) -> Vec<ItemId> {
    let mut stream = Stream::new(universe.world.seed, "world/user", &[user]);
    let mut state = universe.first_state(&mut stream);
    let mut left = universe.all_left(era);
    let mut items = Vec::with_capacity(universe.world.history + 1);
    loop {
        let item = universe.draw_item(state, &left, &mut stream);
        left.take(item, universe.cell(item));
        items.push(item);
        if items.len() > universe.world.history {
            return items;
        }
        state = universe.next_state(state, &mut stream);
    }
}

/// Writes the data folder of `world` into `dir`. The output is deterministic.
pub fn write_data(world: &World, dir: &Path) -> Result<(), Error> {
    let mut dataset = generate(world)?;
    if let Some(name) = dir.file_name() {
        dataset.name = name.to_string_lossy().into_owned();
    }
    dataset.write(dir)?;
    let description = serde_json::json!({ "world": world });
    file(&dir.join(WORLD_FILE), pretty(&description).as_bytes())?;
    Ok(())
}

/// Returns the options to read the folder `dir` written by [`write_data`].
pub fn data_options(world: &World, dir: &Path) -> dataset::Options {
    dataset::Options {
        dir: Some(dir.to_path_buf()),
        min_interactions: world.history + 1,
        ..dataset::Options::default()
    }
}

/// Returns the task of the embedded tokenizer: compact prompts, ids only in the answer.
pub fn task_options() -> task::Options {
    task::Options {
        prompt: prompt::Options { template: "compact".to_owned(), ..prompt::Options::default() },
        answer: completion::Options { layout: Layout::Ids, ..completion::Options::default() },
        ..task::Options::default()
    }
}

#[cfg(test)]
mod tests;
