//! What a request shows of a user: their history, by titles and pictures or by captions. The target is not in it, since
//! nothing here knows it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use podium_recsys::{Catalogue, Item, ItemId};

use crate::endpoint::Part;
use crate::pictures;

/// What items are shown by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Modality {
    /// Titles and pictures.
    Images,
    /// Titles and captions.
    Captions,
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Captions => "captions",
        })
    }
}

/// The items of `history` that the catalogue knows; a data set holds no others.
pub(super) fn items<'a>(catalogue: &'a Catalogue, history: &[ItemId]) -> Vec<&'a Item> {
    history.iter().filter_map(|id| catalogue.get(*id)).collect()
}

/// Titles, and the pictures of those that have one. `None` if none has.
pub(super) fn by_pictures(
    items: &[&Item],
    pictures: &BTreeMap<ItemId, PathBuf>,
) -> Result<Option<Vec<Part>>, pictures::Error> {
    let mut parts = Vec::new();
    let mut shown = false;
    for (number, item) in (1..).zip(items) {
        parts.push(Part::Text(format!("{number}. {}", item.title)));
        if let Some(path) = pictures.get(&item.id) {
            parts.push(Part::Picture(pictures::address(path)?));
            shown = true;
        }
    }
    Ok(shown.then_some(parts))
}

/// Captions one a line, after titles where they are to be `titled`. `None` if no item has a caption.
pub(super) fn by_captions(items: &[&Item], titled: bool) -> Option<String> {
    let line = |(number, item): (usize, &&Item)| match (&item.caption, titled) {
        (Some(caption), true) => format!("{number}. {} — {caption}", item.title),
        (Some(caption), false) => format!("{number}. {caption}"),
        (None, true) => format!("{number}. {}", item.title),
        (None, false) => format!("{number}. (no picture)"),
    };
    let lines: Vec<String> = (1..).zip(items).map(line).collect();
    items.iter().any(|item| item.caption.is_some()).then(|| lines.join("\n"))
}

/// Everything that the records of `items` say.
pub(super) fn told(items: &[&Item]) -> String {
    let records = items
        .iter()
        .map(|item| format!("{} {}\n{}\n", item.id, item.title, item.caption.as_deref().unwrap_or_default()));
    records.collect()
}
