//! MovieLens: the layouts of 100K (`u.data`, `u.item`), 1M and 10M (`::`), and 20M to latest (CSV with a header).

use std::collections::BTreeMap;
use std::path::Path;

use super::collector::{Collector, Row, one_line, rating};
use super::fields::{Separator, Splitter};
use super::header::{self, ItemColumns, LogColumns};
use super::lines::first_line;
use super::rows::{Error, Problem, excerpt};
use super::times::Times;

const RATING_ROW: &str = "`user TAB item TAB rating TAB timestamp` (100K), `user::item::rating::timestamp` (1M, 10M) \
                          or a header `userId,movieId,rating,timestamp` (20M to latest)";
const ITEM_ROW: &str = "`item|title|…` (100K), `item::title::genres` (1M, 10M) or a header `movieId,title,genres` \
                        (20M to latest)";
/// Columns of `u.data` and `ratings.dat`.
const RATING_COLUMNS: usize = 4;

/// Reads the items, what is said of them, and the ratings.
pub(crate) fn read(
    collector: &mut Collector,
    ratings_file: &Path,
    items_file: &Path,
    summaries: Option<&Path>,
) -> Result<(), Error> {
    items(collector, items_file)?;
    if let Some(file) = summaries {
        self::summaries(collector, file)?;
    }
    ratings(collector, ratings_file)
}

fn items(collector: &mut Collector, file: &Path) -> Result<(), Error> {
    let first = first_line(file)?;
    let (separator, width) = if first.contains("movieId") {
        let names = ItemColumns { id: "movieId", title: "title", caption: None };
        return header::items(collector, file, &names);
    } else if first.contains("::") {
        ("::", 3)
    } else if first.contains('|') {
        ("|", first.matches('|').count() + 1)
    } else {
        return Err(Error::Layout { file: file.to_owned(), found: excerpt(&first), expected: ITEM_ROW });
    };
    let mut splitter = Splitter::new(Separator::Plain(separator));
    collector.lines(file, 0, |collector, _, line| {
        let fields = splitter.split(line);
        Ok(if fields.len() == width {
            collector.item(fields.get(0), fields.get(1), None)
        } else {
            Err(Problem::Columns { found: fields.len(), expected: width })
        })
    })?;
    collector.end_items(file, ITEM_ROW)
}

fn ratings(collector: &mut Collector, file: &Path) -> Result<(), Error> {
    let first = first_line(file)?;
    let separator = if first.contains("userId") {
        let names = LogColumns { user: "userId", item: "movieId", time: "timestamp", rating: Some("rating") };
        return header::interactions(collector, file, &names);
    } else if first.contains("::") {
        "::"
    } else if first.contains('\t') {
        "\t"
    } else {
        return Err(Error::Layout { file: file.to_owned(), found: excerpt(&first), expected: RATING_ROW });
    };
    collector.begin_log(file, true)?;
    let mut splitter = Splitter::new(Separator::Plain(separator));
    let mut times = Times::default();
    collector.lines(file, 0, |collector, place, line| {
        let fields = splitter.split(line);
        Ok((|| {
            if fields.len() != RATING_COLUMNS {
                return Err(Problem::Columns { found: fields.len(), expected: RATING_COLUMNS });
            }
            let row = Row {
                user: fields.get(0),
                item: fields.get(1),
                rating: Some(rating(fields.get(2))?),
                time: times.read(fields.get(3))?,
            };
            collector.interaction(place, &row)
        })())
    })?;
    collector.end_log(&times, RATING_ROW)
}

/// A sentence on each title, under a header: `title,sentence`. It stands in for a caption of all items of that title.
fn summaries(collector: &mut Collector, file: &Path) -> Result<(), Error> {
    let mut sentences: BTreeMap<String, String> = BTreeMap::new();
    let mut header = true;
    let delimiter = header::delimiter(&first_line(file)?);
    header::rows(collector, file, delimiter, |collector, place, row| {
        if std::mem::take(&mut header) {
            return Ok(());
        }
        let problem = if let [title, sentence] = row {
            let (title, sentence) = (one_line(title), one_line(sentence));
            if !title.is_empty() && !sentence.is_empty() {
                sentences.entry(title).or_insert(sentence);
                return Ok(());
            }
            Problem::NoField("title or sentence")
        } else {
            Problem::Columns { found: row.len(), expected: 2 }
        };
        collector.skipped.bad(file, place, problem)
    })?;
    for text in &mut collector.texts {
        if let Some(sentence) = sentences.get(&text.title) {
            text.caption = Some(sentence.clone());
        }
    }
    Ok(())
}
