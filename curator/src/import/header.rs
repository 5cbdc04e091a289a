//! Tables with a header: which column is which.

use std::path::{Path, PathBuf};

use podium_recsys::dataset::Place;

use super::collector::{Collector, Row, rating};
use super::fields::{Separator, Splitter};
use super::lines::{first_line, reading, without_mark};
use super::rows::{Error, Problem};
use super::times::Times;

/// Names of an interaction table's columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogColumns<'a> {
    pub(crate) user: &'a str,
    pub(crate) item: &'a str,
    pub(crate) time: &'a str,
    pub(crate) rating: Option<&'a str>,
}

/// Names of an item table's columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ItemColumns<'a> {
    pub(crate) id: &'a str,
    pub(crate) title: &'a str,
    pub(crate) caption: Option<&'a str>,
}

const LOG_ROW: &str = "a user, an item and a timestamp under a header";
const ITEM_ROW: &str = "an item id and a title under a header";

/// Reads a CSV (or TSV) file of interactions.
pub(crate) fn interactions(
    collector: &mut Collector,
    file: &Path,
    names: &LogColumns<'_>,
) -> Result<(), Error> {
    let first = first_line(file)?;
    let mut splitter = Splitter::new(Separator::Quoted(delimiter(&first)));
    let header = splitter.split(&first);
    let find = |name: &str| column(file, (0..header.len()).map(|place| header.get(place)), name);
    let (user, item, time) = (find(names.user)?, find(names.item)?, find(names.time)?);
    let rated = names.rating.map(find).transpose()?;
    let width = header.len();
    collector.begin_log(file, rated.is_some())?;
    let mut times = Times::default();
    collector.lines(file, 1, |collector, place, line| {
        let fields = splitter.split(line);
        Ok((|| {
            if fields.len() != width {
                return Err(Problem::Columns { found: fields.len(), expected: width });
            }
            let row = Row {
                user: fields.get(user),
                item: fields.get(item),
                time: times.read(fields.get(time))?,
                rating: rated.map(|column| rating(fields.get(column))).transpose()?,
            };
            collector.interaction(place, &row)
        })())
    })?;
    collector.end_log(&times, LOG_ROW)
}

/// Reads a CSV (or TSV) file of items. Quoted fields may hold line ends.
pub(crate) fn items(collector: &mut Collector, file: &Path, names: &ItemColumns<'_>) -> Result<(), Error> {
    let mut columns = None;
    let delimiter = delimiter(&first_line(file)?);
    rows(collector, file, delimiter, |collector, place, row| {
        let Some((id, title, caption, width)) = columns else {
            let find = |name: &str| column(file, row.iter().map(String::as_str), name);
            columns =
                Some((find(names.id)?, find(names.title)?, names.caption.map(find).transpose()?, row.len()));
            return Ok(());
        };
        let taken = if row.len() == width {
            collector.item(&row[id], &row[title], caption.map(|column| row[column].as_str()))
        } else {
            Err(Problem::Columns { found: row.len(), expected: width })
        };
        taken.or_else(|problem| collector.skipped.bad(file, place, problem))
    })?;
    collector.end_items(file, ITEM_ROW)
}

/// Reads a file row by row, the header included. A row that is not in the file's encoding is bad.
pub(crate) fn rows(
    collector: &mut Collector,
    file: &Path,
    delimiter: u8,
    mut take: impl FnMut(&mut Collector, Place, &[String]) -> Result<(), Error>,
) -> Result<(), Error> {
    let encoding = collector.encoding(file)?;
    let bytes = std::fs::read(file).map_err(reading(file))?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(without_mark(&bytes));
    let (mut record, mut buffer, mut number) = (csv::ByteRecord::new(), String::new(), 0_u64);
    let mut row: Vec<String> = Vec::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|source| Error::Csv { file: PathBuf::from(file), source })?
    {
        let place = Place::Line(record.position().map_or(0, csv::Position::line));
        row.clear();
        row.extend(
            record
                .iter()
                .map_while(|field| encoding.decode(field, &mut buffer).map(|text| text.trim().to_owned())),
        );
        if row.len() < record.len() {
            collector.skipped.bad(file, place, Problem::Encoding(encoding))?;
        } else {
            take(collector, place, &row)?;
        }
        number += 1;
    }
    collector.read(file, Some(encoding), number.saturating_sub(1));
    Ok(())
}

/// What stands between the columns of a header: tab where it has one, comma or semicolon otherwise.
pub(crate) fn delimiter(first: &str) -> u8 {
    let count = |delimiter: char| first.matches(delimiter).count();
    if count('\t') > 0 {
        b'\t'
    } else if count(';') > count(',') {
        b';'
    } else {
        b','
    }
}

/// The place among `names` of the one column called `name`.
pub(crate) fn column<'a>(
    file: &Path,
    names: impl Iterator<Item = &'a str> + Clone,
    name: &str,
) -> Result<usize, Error> {
    let count = names.clone().filter(|found| *found == name).count();
    let (file, column) = (file.to_owned(), name.to_owned());
    match names.clone().position(|found| found == name) {
        None => Err(Error::NoColumn { file, column, found: names.map(str::to_owned).collect() }),
        Some(_) if count > 1 => Err(Error::RepeatedColumn { file, column, count }),
        Some(place) => Ok(place),
    }
}
