//! Titles and captions of items: `<name>_titles.csv` and `<name>_captions.json`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::catalogue::{Catalogue, Item};
use super::delimited::{self, Bad, Fields, Line, Records};
use super::rows::{Error, Location, Problem, Report, RowPolicy, Rows, excerpt};
use crate::ids::ItemId;

/// Reads the titles file: a header, then rows of item id and title.
pub(super) fn titles(file: &Path, policy: RowPolicy, report: &mut Report) -> Result<Catalogue, Error> {
    let bytes = read(file)?;
    let mut records = Records::new(Text { rest: without_mark(&bytes), number: 0 }, b',');
    let mut rows = Rows { file, policy, report };
    let mut items: BTreeMap<ItemId, Item> = BTreeMap::new();
    let mut columns = None;
    loop {
        let width = columns.unwrap_or(2);
        let alike = |known: Fields<'_>, other: Fields<'_>| {
            other.len() == width && delimited::alike(known.get(0), other.get(0))
        };
        let Some(record) = records.next(alike)? else { break };
        let location = Location::Line(record.line);
        let Some(expected) = columns else {
            let found = record.fields.map(|fields| (fields.len(), fields.get(0).to_owned()));
            let (width, found) = found.unwrap_or_default();
            if found.parse::<ItemId>().is_ok() || width < 2 {
                return Err(Error::NoHeader { file: file.to_path_buf(), location, found: excerpt(&found) });
            }
            columns = Some(width);
            continue;
        };
        let fields = match record.fields {
            Ok(fields) => Ok(fields),
            Err(Bad::Line(line, problem)) => {
                rows.bad(Location::Line(line), problem)?;
                continue;
            }
            Err(Bad::OpenQuote) => Err(Problem::OpenQuote),
            Err(Bad::Ambiguous(last)) => {
                return Err(Error::AmbiguousQuote { file: file.to_path_buf(), first: record.line, last });
            }
        };
        let item = fields.and_then(|fields| titled(fields, expected));
        let Some(item) = rows.keep(location, item)? else { continue };
        match items.entry(item.id) {
            Entry::Vacant(free) => {
                free.insert(item);
            }
            Entry::Occupied(_) => rows.bad(location, Problem::RepeatedItem(item.id))?,
        }
    }
    if items.is_empty() {
        return Err(Error::NoRows { file: file.to_path_buf(), expected: "`item id,title` under a header" });
    }
    Ok(Catalogue::new(items.into_values()))
}

/// The lines of a file in memory.
struct Text<'a> {
    rest: &'a [u8],
    number: u64,
}

impl delimited::Lines for Text<'_> {
    type Problem = Problem;
    type Error = Error;

    fn read(&mut self, line: &mut Line<Problem>) -> Result<bool, Error> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        let end = self.rest.iter().position(|&byte| byte == b'\n');
        let (bytes, rest) = self.rest.split_at(end.map_or(self.rest.len(), |end| end + 1));
        self.rest = rest;
        self.number += 1;
        line.number = self.number;
        let text = String::from_utf8_lossy(bytes);
        line.problem = matches!(text, Cow::Owned(_)).then_some(Problem::NotUtf8);
        line.text.clear();
        line.text.push_str(text.trim_end_matches(['\r', '\n']));
        Ok(true)
    }
}

fn titled(fields: Fields<'_>, expected: usize) -> Result<Item, Problem> {
    if fields.len() != expected {
        return Err(Problem::Columns { found: fields.len(), expected });
    }
    let id: ItemId = fields.get(0).parse().map_err(|_| Problem::ItemId(excerpt(fields.get(0))))?;
    let title = fields.get(1);
    if title.is_empty() {
        return Err(Problem::EmptyTitle(id));
    }
    Ok(Item { id, title: title.to_owned(), caption: None, interactions: 0 })
}

/// Reads the captions file into `catalogue`. Captions of unknown items are counted and skipped.
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
        let Some((id, caption)) = rows.keep(Location::Entry(number), captioned(key, entry))? else {
            continue;
        };
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

/// Reads a whole JSON file with the outer structure `expected`.
pub(super) fn json<T: serde::de::DeserializeOwned>(file: &Path, expected: &'static str) -> Result<T, Error> {
    let bytes = read(file)?;
    serde_json::from_slice(without_mark(&bytes)).map_err(|source| Error::Json {
        file: file.to_path_buf(),
        expected,
        source,
    })
}

/// Returns `bytes` without a byte order mark.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|source| Error::Io { action: "read", path: file.to_path_buf(), source })
}
