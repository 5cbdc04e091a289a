//! Writing a completion as it should look, for the policy to imitate.

use std::fmt::Write as _;

use super::Layout;
use crate::dataset::Catalogue;
use crate::ids::ItemId;

/// The completion that reasons with `thinking` and lists `ranking`, best first. [`super::parse`] reads it back.
pub fn write(thinking: Option<&str>, ranking: &[ItemId], catalogue: &Catalogue, layout: Layout) -> String {
    let (break_line, gap) = match layout {
        Layout::Ids => (" ", " "),
        Layout::Titled => ("\n", "\n\n"),
    };
    let mut text = String::new();
    if let Some(thinking) = thinking {
        write!(text, "<think>{break_line}{thinking}{break_line}</think>{gap}")
            .expect("a String takes all text");
    }
    let entries: Vec<String> = ranking
        .iter()
        .map(|id| match (layout, catalogue.get(*id)) {
            (Layout::Titled, Some(item)) => format!("{id} {}", item.title),
            _ => id.to_string(),
        })
        .collect();
    text + &entries.join(break_line)
}
