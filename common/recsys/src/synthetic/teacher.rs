//! The weak teacher: generates reasoning from a history, with too much weight on old items.

use podium_grpo::rng::Stream;

use super::names::{LOOKS, THEMES};
use super::universe::{State, Universe};
use crate::ids::{ItemId, UserId};

/// Names a look and a theme of `history`: the look of any item, the theme of an item that is likely to be old.
///
/// The target is not an argument, so that reasoning cannot reveal it.
pub(super) fn reason(universe: &Universe, user: UserId, history: &[ItemId]) -> String {
    let mut stream = Stream::new(universe.world.seed, "world/teacher", &[user.0]);
    let mut seen = |among: &[ItemId]| -> State {
        let item = among[stream.below(among.len() as u64) as usize];
        universe.state(universe.cell(item))
    };
    let look = seen(history).look;
    let (anywhere, early) = (seen(history).theme, seen(&history[..history.len().div_ceil(2)]).theme);
    let theme = if stream.uniform() < universe.world.teacher_stale { early } else { anywhere };
    format!("{} {}", LOOKS[look], THEMES[theme])
}
