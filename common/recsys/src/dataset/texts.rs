//! What items are called and what their pictures show: `<name>_titles.csv` and `<name>_captions.json`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::catalogue::{Catalogue, Item};
use super::interactions::excerpt;
use super::rows::{Error, Place, Problem, Report, RowPolicy, Rows};
use crate::ids::ItemId;

/// Reads the titles file: a header, then rows of item id and title.
pub(super) fn titles(file: &Path, policy: RowPolicy, report: &mut Report) -> Result<Catalogue, Error> {
    let bytes = read(file)?;
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(without_mark(&bytes));
    let mut rows = Rows { file, policy, report };
    let mut items: BTreeMap<ItemId, Item> = BTreeMap::new();
    let mut columns = None;
    for record in reader.byte_records() {
        let record = record.map_err(|source| Error::Csv { file: file.to_path_buf(), source })?;
        let Some(expected) = columns else {
            let found = String::from_utf8_lossy(record.get(0).unwrap_or_default()).into_owned();
            if found.trim().parse::<ItemId>().is_ok() || record.len() < 2 {
                return Err(Error::NoHeader { file: file.to_path_buf(), found: excerpt(&found) });
            }
            columns = Some(record.len());
            continue;
        };
        let place = Place::Line(record.position().map_or(0, csv::Position::line));
        let Some(item) = rows.keep(place, titled(&record, expected))? else { continue };
        match items.entry(item.id) {
            Entry::Vacant(free) => {
                free.insert(item);
            }
            Entry::Occupied(_) => rows.bad(place, Problem::RepeatedItem(item.id))?,
        }
    }
    if items.is_empty() {
        return Err(Error::NoRows { file: file.to_path_buf(), expected: "`item id,title` under a header" });
    }
    Ok(Catalogue::new(items.into_values()))
}

fn titled(record: &csv::ByteRecord, expected: usize) -> Result<Item, Problem> {
    if record.len() != expected {
        return Err(Problem::Columns { found: record.len(), expected });
    }
    let text = |column: usize| {
        std::str::from_utf8(record.get(column).unwrap_or_default())
            .map(str::trim)
            .map_err(|_| Problem::NotUtf8)
    };
    let id: ItemId = text(0)?.parse().map_err(|_| Problem::ItemId(excerpt(text(0).unwrap_or_default())))?;
    let title = text(1)?;
    if title.is_empty() {
        return Err(Problem::EmptyTitle(id));
    }
    Ok(Item { id, title: title.to_owned(), caption: None, interactions: 0 })
}

/// Reads the captions file into `catalogue`. Captions of items that are not in it are counted and left out.
pub(super) fn captions(
    file: &Path,
    catalogue: &mut Catalogue,
    policy: RowPolicy,
    report: &mut Report,
) -> Result<(), Error> {
    const EXPECTED: &str = "an object {\"<item id>\": {\"caption\": …}, …}";
    let entries: Map<String, Value> = json(file, EXPECTED)?;
    let mut rows = Rows { file, policy, report };
    for (number, (key, entry)) in (1..).zip(&entries) {
        let Some((id, caption)) = rows.keep(Place::Entry(number), captioned(key, entry))? else { continue };
        match catalogue.get_mut(id) {
            Some(item) => item.caption = Some(caption.to_owned()),
            None => rows.report.captions_without_item += 1,
        }
    }
    Ok(())
}

fn captioned<'a>(key: &str, entry: &'a Value) -> Result<(ItemId, &'a str), Problem> {
    let id = key.trim().parse().map_err(|_| Problem::ItemId(excerpt(key)))?;
    let caption = entry.get("caption").and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if caption.is_empty() { Err(Problem::NoText("caption")) } else { Ok((id, caption)) }
}

/// Reads a whole JSON file of the outer shape `expected`.
pub(super) fn json<T: serde::de::DeserializeOwned>(file: &Path, expected: &'static str) -> Result<T, Error> {
    let bytes = read(file)?;
    serde_json::from_slice(without_mark(&bytes)).map_err(|source| Error::Json {
        file: file.to_path_buf(),
        expected,
        source,
    })
}

/// `bytes` without the byte order mark that some editors put first.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|source| Error::Io { action: "read", path: file.to_path_buf(), source })
}
