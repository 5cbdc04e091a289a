//! MovieLens: the layouts of 100K (`u.data`, `u.item`), 1M and 10M (`::`), and 20M to latest (CSV with a header).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use podium_recsys::dataset::Location;

use super::collector::{Collector, Row, rating};
use super::header::{self, ItemColumns, LogColumns, Table};
use super::input::Input;
use super::lines::first_line;
use super::rows::{Error, Problem};
use super::times::Times;

const RATING_ROW: &str = "`user TAB item TAB rating TAB timestamp` (100K), `user::item::rating::timestamp` (1M, 10M) \
                          or a header `userId,movieId,rating,timestamp` (20M to latest)";
const ITEM_ROW: &str = "`item|title|…` (100K), `item::title::genres` (1M, 10M) or a header `movieId,title,genres` \
                        (20M to latest)";
/// Columns of `u.data` and `ratings.dat`.
const RATING_COLUMNS: usize = 4;

/// Reads the items, their summaries, and the ratings.
pub(crate) fn read(
    collector: &mut Collector,
    ratings_files: &[PathBuf],
    items_files: &[PathBuf],
    summaries: Option<&Path>,
) -> Result<(), Error> {
    collector.each(items_files, items)?;
    collector.end_items(items_files, ITEM_ROW)?;
    if let Some(file) = summaries {
        self::summaries(collector, file)?;
    }
    let mut times = Times::default();
    collector.each(ratings_files, |collector, input| ratings(collector, input, &mut times))?;
    collector.end_log(ratings_files, &times, RATING_ROW)
}

fn items(collector: &mut Collector, input: &Input) -> Result<(), Error> {
    let encoding = collector.encoding(input)?;
    let (number, first) = first_line(input, encoding)?;
    let (separator, width) = if first.contains("movieId") {
        let names = ItemColumns { id: "movieId", title: "title", caption: None };
        return header::items(collector, input, &names);
    } else if first.contains("::") {
        ("::", 3)
    } else if first.contains('|') {
        ("|", first.matches('|').count() + 1)
    } else {
        return Err(Error::layout(input, number, &first, ITEM_ROW));
    };
    header::lines(collector, input, encoding, 0, |collector, _, line| {
        let fields: Vec<&str> = line.split(separator).map(str::trim).collect();
        match fields[..] {
            [id, title, ..] if fields.len() == width => collector.item(id, title, None),
            _ => Err(Problem::Columns { found: fields.len(), expected: width }),
        }
    })
}

fn ratings(collector: &mut Collector, input: &Input, times: &mut Times) -> Result<(), Error> {
    let encoding = collector.encoding(input)?;
    let (number, first) = first_line(input, encoding)?;
    let separator = if first.contains("userId") {
        let names = LogColumns { user: "userId", item: "movieId", time: "timestamp", rating: Some("rating") };
        return header::interactions(collector, input, &names, times);
    } else if first.contains("::") {
        "::"
    } else if first.contains('\t') {
        "\t"
    } else {
        return Err(Error::layout(input, number, &first, RATING_ROW));
    };
    collector.begin_log(input, Location::Line, true)?;
    header::lines(collector, input, encoding, 0, |collector, location, line| {
        let fields: Vec<&str> = line.split(separator).map(str::trim).collect();
        let [user, item, stars, time] = fields[..] else {
            return Err(Problem::Columns { found: fields.len(), expected: RATING_COLUMNS });
        };
        let rating = Some(rating(stars)?);
        collector.interaction(location, &Row { user, item, rating, time: times.read(time)? })
    })
}

/// Reads a sentence for each title, under a header: `title,sentence`. It is the caption of all items with that title.
fn summaries(collector: &mut Collector, file: &Path) -> Result<(), Error> {
    let mut sentences: BTreeMap<String, String> = BTreeMap::new();
    collector.each(&[file.to_owned()], |collector, input| {
        let table = Table::open(collector, input, None)?;
        table.rows(
            collector,
            Some(2),
            true,
            |_, _| false,
            |collector, _, fields| {
                let (title, sentence) = (collector.text(fields.get(0)), collector.text(fields.get(1)));
                if title.is_empty() || sentence.is_empty() {
                    return Err(Problem::NoField("title or sentence"));
                }
                sentences.entry(title).or_insert(sentence);
                Ok(())
            },
        )
    })?;
    let mut found = false;
    for text in &mut collector.texts {
        if let Some(sentence) = sentences.get(&text.title) {
            text.caption = Some(sentence.clone());
            found = true;
        }
    }
    if found { Ok(()) } else { Err(Error::NoSummary(file.to_owned())) }
}
