//! Tables with a header, and the assignment of their columns.

use std::path::Path;

use podium_recsys::dataset::Location;
use podium_recsys::dataset::delimited::{Bad, Fields, Line, Records, alike};

use super::collector::{Collector, Row, rating};
use super::encoding::Encoding;
use super::input::Input;
use super::lines::{Lines, first_line};
use super::rows::{Error, Problem};
use super::times::{self, Times};

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

pub(crate) const LOG_ROW: &str = "a user, an item and a timestamp under a header";
pub(crate) const ITEM_ROW: &str = "an item id and a title under a header";

/// A table with a parsed header.
pub(crate) struct Table<'a> {
    input: &'a Input,
    encoding: Encoding,
    delimiter: u8,
    header: Vec<String>,
}

/// Source of a column's values.
pub(crate) enum Column {
    /// Field at this index of each record.
    At(usize),
    /// Name of a partition folder.
    Fixed(String),
}

impl Column {
    /// Returns the column's value in a record.
    pub(crate) fn of<'a>(&'a self, fields: Fields<'a>) -> &'a str {
        match self {
            Self::At(position) => fields.get(*position),
            Self::Fixed(value) => value,
        }
    }
}

/// Reads a CSV (or TSV) file of interactions.
pub(crate) fn interactions(
    collector: &mut Collector,
    input: &Input,
    names: &LogColumns<'_>,
    times: &mut Times,
) -> Result<(), Error> {
    let table = Table::open(collector, input, None)?;
    let (user, item, time) =
        (table.column(names.user)?, table.column(names.item)?, table.column(names.time)?);
    let rated = names.rating.map(|name| table.column(name)).transpose()?;
    let width = table.header.len();
    let like = |known: Fields<'_>, other: Fields<'_>| {
        let ids = [&user, &item].iter().all(|column| alike(column.of(known), column.of(other)));
        other.len() == width && ids && times::parse(time.of(other)).is_some()
    };
    collector.begin_log(input, Location::Line, rated.is_some())?;
    table.rows(collector, Some(width), true, like, |collector, location, fields| {
        let row = Row {
            user: user.of(fields),
            item: item.of(fields),
            time: times.read(time.of(fields))?,
            rating: rated.as_ref().map(|column| rating(column.of(fields))).transpose()?,
        };
        collector.interaction(location, &row)
    })
}

/// Reads a CSV (or TSV) file of items.
pub(crate) fn items(collector: &mut Collector, input: &Input, names: &ItemColumns<'_>) -> Result<(), Error> {
    let table = Table::open(collector, input, None)?;
    let (id, title) = (table.column(names.id)?, table.column(names.title)?);
    let caption = names.caption.map(|name| table.column(name)).transpose()?;
    let width = table.header.len();
    let like =
        |known: Fields<'_>, other: Fields<'_>| other.len() == width && alike(id.of(known), id.of(other));
    table.rows(collector, Some(width), true, like, |collector, _, fields| {
        collector.item(id.of(fields), title.of(fields), caption.as_ref().map(|column| column.of(fields)))
    })
}

impl<'a> Table<'a> {
    /// Reads the header of `input`. Its delimiter is detected unless it is given.
    pub(crate) fn open(
        collector: &Collector,
        input: &'a Input,
        delimiter: Option<u8>,
    ) -> Result<Self, Error> {
        let encoding = collector.encoding(input)?;
        let delimiter = match delimiter {
            Some(delimiter) => delimiter,
            None => self::delimiter(&first_line(input, encoding)?.1),
        };
        let mut records = Records::new(Lines::open(input, encoding, collector.fallback())?, delimiter);
        let first = records.next(|_, _| false)?.and_then(|record| record.fields.ok());
        let header = first.map(|fields| fields.iter().map(str::to_owned).collect()).unwrap_or_default();
        Ok(Self { input, encoding, delimiter, header })
    }

    /// Returns the column `name` of the header or of the partition folders.
    pub(crate) fn column(&self, name: &str) -> Result<Column, Error> {
        column(&self.input.path, self.header.iter().map(String::as_str), &self.input.partition, name)
    }

    /// Calls `take` for each record, without the header. Records must have `width` fields if it is given. `like`
    /// decides whether a line looks like a record, for unclosed quotes.
    pub(crate) fn rows(
        &self,
        collector: &mut Collector,
        width: Option<usize>,
        has_header: bool,
        like: impl Fn(Fields<'_>, Fields<'_>) -> bool,
        mut take: impl FnMut(&mut Collector, Location, Fields<'_>) -> Result<(), Problem>,
    ) -> Result<(), Error> {
        let lines = Lines::open(self.input, self.encoding, collector.fallback())?;
        let mut records = Records::new(lines, self.delimiter);
        let (mut header, mut rows) = (has_header, 0);
        while let Some(record) = records.next(&like)? {
            if std::mem::take(&mut header) {
                continue;
            }
            rows += 1;
            let mut location = Location::Line(record.line);
            let taken = match (record.fields, width) {
                (Ok(fields), Some(width)) if fields.len() != width => {
                    Err(Problem::Columns { found: fields.len(), expected: width })
                }
                (Ok(fields), _) => take(collector, location, fields),
                (Err(Bad::OpenQuote), _) => Err(Problem::OpenQuote),
                (Err(Bad::Line(line, problem)), _) => {
                    location = Location::Line(line);
                    Err(problem)
                }
                (Err(Bad::Ambiguous(last)), _) => {
                    let file = self.input.path.clone();
                    return Err(Error::AmbiguousQuote { file, first: record.line, last });
                }
            };
            if let Err(problem) = taken {
                collector.skipped.bad(self.input, location, problem)?;
            }
        }
        collector.read(Some(self.encoding), rows, records.into_lines().fallen_back);
        Ok(())
    }

    /// Returns the fields of the header.
    pub(crate) fn header(&self) -> &[String] {
        &self.header
    }
}

/// Calls `take` for each nonblank line of `input` after the first `header` ones.
pub(crate) fn lines(
    collector: &mut Collector,
    input: &Input,
    encoding: Encoding,
    header: usize,
    mut take: impl FnMut(&mut Collector, Location, &str) -> Result<(), Problem>,
) -> Result<(), Error> {
    let mut lines = Lines::open(input, encoding, collector.fallback())?;
    let mut line = Line { number: 0, text: String::new(), problem: None };
    let (mut left, mut rows) = (header, 0);
    while lines.next(&mut line)? {
        if left > 0 {
            left -= 1;
            continue;
        }
        rows += 1;
        let location = Location::Line(line.number);
        let taken = match line.problem.take() {
            None => take(collector, location, &line.text),
            Some(problem) => Err(problem),
        };
        if let Err(problem) = taken {
            collector.skipped.bad(input, location, problem)?;
        }
    }
    collector.read(Some(encoding), rows, lines.fallen_back);
    Ok(())
}

/// Detects the delimiter of a header: tab if it contains one, otherwise comma or semicolon.
fn delimiter(first: &str) -> u8 {
    let count = |delimiter: char| first.matches(delimiter).count();
    if count('\t') > 0 {
        b'\t'
    } else if count(';') > count(',') {
        b';'
    } else {
        b','
    }
}

/// Returns the only column called `name` in `header` or in the partition folders.
pub(crate) fn column<'a>(
    file: &Path,
    header: impl Iterator<Item = &'a str> + Clone,
    partition: &'a [(String, String)],
    name: &str,
) -> Result<Column, Error> {
    let count = header.clone().filter(|found| *found == name).count();
    let (file, column) = (file.to_owned(), name.to_owned());
    if count > 1 {
        return Err(Error::RepeatedColumn { file, column, count });
    }
    if let Some(position) = header.clone().position(|found| found == name) {
        return Ok(Column::At(position));
    }
    if let Some((_, value)) = partition.iter().rfind(|(key, _)| key == name) {
        return Ok(Column::Fixed(value.clone()));
    }
    let keys = partition.iter().map(|(key, _)| key.as_str());
    let found = header.chain(keys).map(str::to_owned).collect();
    Err(Error::NoColumn { file, column, found })
}
