//! The released splits of MiniOneRec: rows of a history and the item after it, in the order of their times.
//!
//! The rows of a user are the same sequence, seen from each of its items: a history shows up to ten items before the
//! target. Sequences are put together again, and the parts end where those of the files end.

use std::path::PathBuf;

use podium_recsys::dataset::Location;
use podium_recsys::dataset::delimited::{Fields, alike};
use serde_json::Value;

use super::collector::{Collector, Interaction, Separation};
use super::header::{self, Column, Table};
use super::input::Input;
use super::rows::{Error, Problem, excerpt};
use super::times::Times;

const ROW: &str = "a table with the columns user_id, history_item_id and item_id";
const INFO_ROW: &str = "`semantic id TAB title TAB item` (info/*.txt)";

/// The files of the three parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) train: &'a [PathBuf],
    pub(crate) valid: &'a [PathBuf],
    pub(crate) test: &'a [PathBuf],
}

/// Reads titles and the rows of the three parts.
pub(crate) fn read(collector: &mut Collector, parts: Parts<'_>, info: &[PathBuf]) -> Result<(), Error> {
    collector.each(info, |collector, input| {
        let encoding = collector.encoding(input)?;
        header::lines(collector, input, encoding, 0, |collector, _, line| {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                [_, title, id] => collector.item(id.trim(), title, None),
                _ => Err(Problem::Columns { found: fields.len(), expected: 3 }),
            }
        })
    })?;
    collector.end_items(info, INFO_ROW)?;
    let mut sequences = Sequences::default();
    collector.each(parts.train, |collector, input| rows(collector, input, &mut sequences))?;
    let validation = sequences.time;
    collector.each(parts.valid, |collector, input| rows(collector, input, &mut sequences))?;
    let test = sequences.time;
    collector.each(parts.test, |collector, input| rows(collector, input, &mut sequences))?;
    collector.released = Some(Separation { validation, test });
    collector.end_log(parts.train, &Times::default(), ROW)
}

/// The sequences so far.
#[derive(Debug, Default)]
struct Sequences {
    /// Items of each user, by index of the user.
    users: Vec<Vec<u32>>,
    /// Time of the next item: its number among the items of all users.
    time: i64,
}

fn rows(collector: &mut Collector, input: &Input, sequences: &mut Sequences) -> Result<(), Error> {
    let table = Table::open(collector, input, Some(b','))?;
    let (user, history, item) =
        (table.column("user_id")?, table.column("history_item_id")?, table.column("item_id")?);
    let width = table.header().len();
    let like = |known: Fields<'_>, other: Fields<'_>| {
        other.len() == width && alike(item.of(known), item.of(other)) && list(history.of(other)).is_ok()
    };
    collector.begin_log(input, Location::Line, false)?;
    table.rows(collector, Some(width), true, like, |collector, location, fields| {
        row(collector, location, fields, [&user, &history, &item], sequences)
    })
}

fn row(
    collector: &mut Collector,
    location: Location,
    fields: Fields<'_>,
    [user, history, item]: [&Column; 3],
    sequences: &mut Sequences,
) -> Result<(), Problem> {
    let mut items = list(history.of(fields))?;
    items.push(item.of(fields).to_owned());
    if user.of(fields).is_empty() {
        return Err(Problem::NoField("user id"));
    }
    let items: Vec<u32> = items
        .iter()
        .map(|item| collector.items.find(item).ok_or_else(|| Problem::UnknownItem(excerpt(item))))
        .collect::<Result<_, _>>()?;
    let (index, _) = collector.users.intern(user.of(fields));
    if sequences.users.len() <= index as usize {
        sequences.users.resize_with(index as usize + 1, Vec::new);
    }
    let known = &mut sequences.users[index as usize];
    let shown = items.len() - 1;
    // The first row of a user begins the sequence.
    let new = if known.is_empty() {
        &items[..]
    } else if known.ends_with(&items[..shown]) {
        &items[shown..]
    } else {
        return Err(Problem::BrokenHistory);
    };
    known.extend_from_slice(new);
    let (log, row) = collector.place(location);
    for &item in new {
        collector.interactions.push(Interaction { user: index, item, time: sequences.time, log, row });
        sequences.time += 1;
    }
    Ok(())
}

/// Parses a list of numbers as Python writes it: `[1, 2]`.
fn list(text: &str) -> Result<Vec<String>, Problem> {
    let wrong = || Problem::History(excerpt(text));
    let items: Vec<Value> = serde_json::from_str(text).map_err(|_| wrong())?;
    items.iter().map(|item| item.as_u64().map(|item| item.to_string()).ok_or_else(wrong)).collect()
}
