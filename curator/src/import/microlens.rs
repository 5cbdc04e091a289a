//! MicroLens: pairs of users and items, and titles.
//!
//! Pairs come as `user TAB items separated by spaces`, oldest first and without times, or as a table with the header
//! `user,item,timestamp`.

use std::path::Path;

use podium_recsys::dataset::Place;

use super::collector::{Collector, Row};
use super::header::{self, LogColumns};
use super::ids::Ids;
use super::lines::first_line;
use super::rows::{Error, Problem, excerpt};
use super::times::Times;

const PAIR_ROW: &str = "`user TAB items separated by spaces`, or a header `user,item,timestamp`";
const TITLE_ROW: &str = "`item,title`, with or without a header whose second column is `title`";

/// Reads titles and pairs.
pub(crate) fn read(collector: &mut Collector, pairs: &Path, titles: &Path) -> Result<(), Error> {
    self::titles(collector, titles)?;
    let first = first_line(pairs)?;
    if first.starts_with("user,item,timestamp") {
        let names = LogColumns { user: "user", item: "item", time: "timestamp", rating: None };
        return header::interactions(collector, pairs, &names);
    }
    if !first.contains('\t') {
        return Err(Error::Layout { file: pairs.to_owned(), found: excerpt(&first), expected: PAIR_ROW });
    }
    collector.begin_log(pairs, false)?;
    let header = u64::from(first.starts_with("user"));
    let mut users = Ids::default();
    collector.lines(pairs, header, |collector, place, line| {
        let Some((user, items)) = line.split_once('\t').filter(|(_, items)| !items.contains('\t')) else {
            let found = line.split('\t').count();
            return Ok(Err(Problem::Columns { found, expected: 2 }));
        };
        let user = user.trim();
        if !users.intern(user).1 {
            return Ok(Err(Problem::RepeatedUser(excerpt(user))));
        }
        Ok(history(collector, place, user, items))
    })?;
    collector.end_log(&Times::default(), PAIR_ROW)
}

/// All of a user's items, or none: a sequence with holes would be another sequence.
fn history(collector: &mut Collector, place: Place, user: &str, items: &str) -> Result<(), Problem> {
    let unknown = items.split_ascii_whitespace().find(|item| collector.items.find(item).is_none());
    if let Some(item) = unknown {
        return Err(Problem::UnknownItem(excerpt(item)));
    }
    let mut length = 0;
    for (time, item) in (0..).zip(items.split_ascii_whitespace()) {
        collector.interaction(place, &Row { user, item, time, rating: None })?;
        length += 1;
    }
    if length == 0 { Err(Problem::EmptyHistory) } else { Ok(()) }
}

/// The titles. A header is one whatever its id column is called: taken for an item, it would make names of all ids.
fn titles(collector: &mut Collector, file: &Path) -> Result<(), Error> {
    let mut width = 2;
    // The first row where its id is no number, and whether all others' are.
    let (mut first, mut odd, mut all_numbers, mut items) = (true, None, true, 0_u64);
    header::rows(collector, file, b',', |collector, place, row| {
        let [id, title, ..] = row else {
            let problem = Problem::Columns { found: row.len(), expected: width };
            return collector.skipped.bad(file, place, problem);
        };
        let is_number = id.parse::<u64>().is_ok();
        if std::mem::take(&mut first) && !is_number {
            if title.eq_ignore_ascii_case("title") {
                width = row.len();
                return Ok(());
            }
            odd = Some(excerpt(&row.join(",")));
        } else {
            all_numbers &= is_number;
            items += 1;
        }
        let taken = if row.len() == width {
            collector.item(id, title, None)
        } else {
            Err(Problem::Columns { found: row.len(), expected: width })
        };
        taken.or_else(|problem| collector.skipped.bad(file, place, problem))
    })?;
    match odd {
        Some(found) if all_numbers && items > 0 => {
            Err(Error::Layout { file: file.to_owned(), found, expected: TITLE_ROW })
        }
        _ => collector.end_items(file, TITLE_ROW),
    }
}
