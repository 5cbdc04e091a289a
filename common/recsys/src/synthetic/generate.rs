//! Generation of the data set, and of its folder.

use std::collections::BTreeMap;
use std::path::Path;

use podium_grpo::rng::Stream;

use super::error::Error;
use super::teacher;
use super::universe::{Era, Universe};
use super::world::{TEST_FROM, VALIDATION_FROM, WORLD_FILE, World};
use crate::completion::{self, Layout};
use crate::dataset::write::{file, pretty};
use crate::dataset::{self, Dataset, Report, TrainingTargets, User, Validation, ValidationSource};
use crate::ids::{ItemId, UserId};
use crate::{prompt, task};

/// Generates the data set of `world`, named `embedded`.
///
/// The users of a part do not depend on the numbers of users of the others.
pub fn generate(world: &World) -> Result<Dataset, Error> {
    world.check()?;
    let universe = Universe::new(world);
    let user = |era: Era| {
        let universe = &universe;
        move |id: u64| User { id: UserId(id), items: interactions(universe, era, id) }
    };
    let train: Vec<User> = (0..world.train_users).map(user(Era::Training)).collect();
    let held_out = |from: u64, users: u64| (from..from + users).map(user(Era::HeldOut)).collect();
    let validation: Vec<User> = held_out(VALIDATION_FROM, world.validation_users);
    let test: Vec<User> = held_out(TEST_FROM, world.test_users);
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
        validation,
        validation_source: ValidationSource::File,
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
        validation: Validation::File,
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
