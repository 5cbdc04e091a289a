//! Writing a completion as it should look, for the policy to imitate.

use std::fmt::Write as _;

use super::Layout;
use crate::dataset::Catalogue;
use crate::ids::ItemId;

/// What no title may hold that stands in a list: it would end the line, or be read as something else.
const NOT_IN_A_LIST: [&str; 4] = ["\n", "[ITEM_", "<think>", "</think>"];

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
    let entries: Vec<String> = ranking.iter().map(|id| entry(*id, catalogue, layout)).collect();
    text + &entries.join(break_line)
}

/// An item as an answer lists it. A title that cannot stand on a line of its own is left out.
pub fn entry(id: ItemId, catalogue: &Catalogue, layout: Layout) -> String {
    let title = match layout {
        Layout::Ids => "",
        Layout::Titled => catalogue.get(id).map_or("", |item| item.title.trim()),
    };
    if title.is_empty() || NOT_IN_A_LIST.iter().any(|part| title.contains(part)) {
        id.to_string()
    } else {
        format!("{id} {title}")
    }
}
