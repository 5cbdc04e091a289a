//! Presents a user's history in a request, by titles and pictures or by captions. The module does not receive the
//! target.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use podium_recsys::{Catalogue, Item, ItemId};

use crate::endpoint::Part;
use crate::pictures;

/// Presentation of items.
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

/// Returns the items of `history` in the catalogue; a data set contains no others.
pub(super) fn items<'a>(catalogue: &'a Catalogue, history: &[ItemId]) -> Vec<&'a Item> {
    history.iter().filter_map(|id| catalogue.get(*id)).collect()
}

/// Returns titles with the available pictures; `None` without pictures.
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

/// Returns one caption per line, with titles if `titled`; `None` if no item has a caption.
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

/// Returns the texts of all records of `items`.
pub(super) fn record_texts(items: &[&Item]) -> String {
    let records = items
        .iter()
        .map(|item| format!("{} {}\n{}\n", item.id, item.title, item.caption.as_deref().unwrap_or_default()));
    records.collect()
}
