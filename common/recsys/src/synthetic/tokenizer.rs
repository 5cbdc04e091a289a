//! The embedded policy's tokenizer: one token a word, one token an item.

use std::path::Path;

use super::universe::{LOOKS, THEMES};
use super::{Error, World};
use crate::ids::ItemId;
use crate::vocabulary;

/// All tokens; a token's id is its place.
pub fn vocabulary(world: &World) -> Vec<String> {
    let looks = LOOKS.iter().copied().take(world.looks);
    let themes = THEMES.iter().copied().take(world.themes);
    vocabulary::tokens(looks.chain(themes), (0..world.items() as u64).map(ItemId))
}

/// Writes the tokenizer's files into `dir`, byte for byte the same each time.
pub fn write_tokenizer(world: &World, dir: &Path) -> Result<(), Error> {
    world.check()?;
    Ok(vocabulary::write(vocabulary(world), dir)?)
}
