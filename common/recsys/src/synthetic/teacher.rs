//! The weak teacher: reasons from a history alone, and looks too far back.

use podium_grpo::rng::Stream;

use super::universe::{LOOKS, State, THEMES, Universe};
use crate::ids::{ItemId, UserId};

/// Names a look and a theme of `history`: the look of any item, the theme of one that is likely to be an old one.
///
/// The target is not an argument, so no reasoning can give it away.
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
