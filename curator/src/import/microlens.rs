//! MicroLens: pairs of users and items, and titles.
//!
//! Pairs have the format `user TAB items separated by spaces`, oldest first and without times, or are a table with the
//! header `user,item,timestamp`.

use std::path::PathBuf;

use podium_recsys::dataset::Location;
use podium_recsys::dataset::delimited::{Fields, alike};

use super::collector::{Collector, Row};
use super::header::{self, LogColumns, Table};
use super::ids::Ids;
use super::input::Input;
use super::lines::first_line;
use super::rows::{Error, Problem, excerpt};
use super::times::Times;

const PAIR_ROW: &str = "`user TAB items separated by spaces`, or a header `user,item,timestamp`";
const TITLE_ROW: &str = "`item,title`, with or without a header whose second column is `title`";

/// Reads titles and pairs.
pub(crate) fn read(
    collector: &mut Collector,
    pairs_files: &[PathBuf],
    titles_files: &[PathBuf],
) -> Result<(), Error> {
    collector.each(titles_files, titles)?;
    collector.end_items(titles_files, TITLE_ROW)?;
    let (mut users, mut times) = (Ids::default(), Times::default());
    collector.each(pairs_files, |collector, input| pairs(collector, input, &mut users, &mut times))?;
    collector.end_log(pairs_files, &times, PAIR_ROW)
}

fn pairs(collector: &mut Collector, input: &Input, users: &mut Ids, times: &mut Times) -> Result<(), Error> {
    let encoding = collector.encoding(input)?;
    let (number, first) = first_line(input, encoding)?;
    if first.starts_with("user,item,timestamp") {
        let names = LogColumns { user: "user", item: "item", time: "timestamp", rating: None };
        return header::interactions(collector, input, &names, times);
    }
    if !first.contains('\t') {
        return Err(Error::layout(input, number, &first, PAIR_ROW));
    }
    collector.begin_log(input, Location::Line, false)?;
    let header = usize::from(first.starts_with("user"));
    header::lines(collector, input, encoding, header, |collector, location, line| {
        let Some((user, items)) = line.split_once('\t').filter(|(_, items)| !items.contains('\t')) else {
            let found = line.split('\t').count();
            return Err(Problem::Columns { found, expected: 2 });
        };
        let user = user.trim();
        if !users.intern(user).1 {
            return Err(Problem::RepeatedUser(excerpt(user)));
        }
        history(collector, location, user, items)
    })
}

/// Adds all of a user's items, or none: a sequence with gaps would be a different sequence.
fn history(collector: &mut Collector, location: Location, user: &str, items: &str) -> Result<(), Problem> {
    let unknown = items.split_ascii_whitespace().find(|item| collector.items.find(item).is_none());
    if let Some(item) = unknown {
        return Err(Problem::UnknownItem(excerpt(item)));
    }
    let mut length = 0;
    for (time, item) in (0..).zip(items.split_ascii_whitespace()) {
        collector.interaction(location, &Row { user, item, time, rating: None })?;
        length += 1;
    }
    if length == 0 { Err(Problem::EmptyHistory) } else { Ok(()) }
}

/// Reads the titles. The header is detected for any name of the id column; as an item it would turn all ids into names.
fn titles(collector: &mut Collector, input: &Input) -> Result<(), Error> {
    let number = |id: &str| id.parse::<u64>().is_ok();
    let table = Table::open(collector, input, Some(b','))?;
    let (has_header, width) = match table.header() {
        [id, title, ..] if !number(id) && title.eq_ignore_ascii_case("title") => (true, table.header().len()),
        _ => (false, 2),
    };
    // The first row whose id is not a number, and whether all other ids are numbers.
    let (mut first, mut odd, mut all_numbers, mut items) = (!has_header, None, true, 0_u64);
    let like =
        |known: Fields<'_>, other: Fields<'_>| other.len() == width && alike(known.get(0), other.get(0));
    table.rows(collector, Some(width), has_header, like, |collector, location, fields| {
        let (id, title) = (fields.get(0), fields.get(1));
        if std::mem::take(&mut first) && !number(id) {
            odd = Some((location, format!("{id},{title}")));
        } else {
            all_numbers &= number(id);
            items += 1;
        }
        collector.item(id, title, None)
    })?;
    match odd {
        Some((Location::Line(line) | Location::Entry(line), found)) if all_numbers && items > 0 => {
            Err(Error::layout(input, line, &found, TITLE_ROW))
        }
        _ => Ok(()),
    }
}
