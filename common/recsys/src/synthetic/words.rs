//! The words of the embedded policy's tokenizer: names of looks, themes and items.

use super::error::Error;
use super::names::{LOOKS, THEMES};
use super::world::World;
use crate::ids::ItemId;

/// Returns all words of prompts and completions about `world`, including the items, in the order of
/// their tokens.
pub fn words(world: &World) -> Result<Vec<String>, Error> {
    world.check()?;
    let looks = LOOKS.iter().take(world.looks);
    let themes = THEMES.iter().take(world.themes);
    let items = (0..world.items() as u64).map(|id| ItemId(id).to_string());
    Ok(looks.chain(themes).map(ToString::to_string).chain(items).collect())
}
