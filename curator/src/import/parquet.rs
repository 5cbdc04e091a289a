//! Parquet tables, row by row, reading the columns that are asked for alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;
use podium_recsys::dataset::Place;

use super::collector::{Collector, Row, rating};
use super::header::{ItemColumns, LogColumns, column};
use super::lines::{Meter, open, reading};
use super::rows::{Error, Problem, excerpt};
use super::times::{Kind, Times};

const LOG_ROW: &str = "rows of a user, an item and a timestamp";
const ITEM_ROW: &str = "rows of an item id and a title";

/// Whether `file` is to be read as Parquet: by its ending.
pub(crate) fn is_parquet(file: &Path) -> bool {
    file.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("parquet") || ending.eq_ignore_ascii_case("pq"))
}

/// Reads a table of interactions.
pub(crate) fn interactions(
    collector: &mut Collector,
    file: &Path,
    names: &LogColumns<'_>,
) -> Result<(), Error> {
    collector.begin_log(file, names.rating.is_some())?;
    let mut columns = vec![names.user, names.item, names.time];
    columns.extend(names.rating);
    let mut times = Times::default();
    rows(collector, file, &columns, |collector, place, fields| {
        let [user, item, time, ..] = fields else { return Err(Problem::NoField("timestamp")) };
        let (user, item) = (text(user, "user id")?, text(item, "item id")?);
        let rating = fields.get(3).map(number).transpose()?;
        collector
            .interaction(place, &Row { user: &user, item: &item, time: moment(time, &mut times)?, rating })
    })?;
    collector.end_log(&times, LOG_ROW)
}

/// Reads a table of items.
pub(crate) fn items(collector: &mut Collector, file: &Path, names: &ItemColumns<'_>) -> Result<(), Error> {
    let mut columns = vec![names.id, names.title];
    columns.extend(names.caption);
    rows(collector, file, &columns, |collector, _, fields| {
        let [id, title, ..] = fields else { return Err(Problem::NoField("title")) };
        // A null is an empty text here: an item without a title, or without a caption.
        let title = text(title, "title").unwrap_or_default();
        let caption = fields.get(2).map(|field| text(field, "caption").unwrap_or_default());
        collector.item(&text(id, "item id")?, &title, caption.as_deref())
    })?;
    collector.end_items(file, ITEM_ROW)
}

/// Gives `take` the named columns of each row, in the order of the names.
fn rows(
    collector: &mut Collector,
    file: &Path,
    names: &[&str],
    mut take: impl FnMut(&mut Collector, Place, &[Field]) -> Result<(), Problem>,
) -> Result<(), Error> {
    let damaged = |source: ParquetError| Error::Parquet { file: file.to_owned(), source };
    let handle = open(file)?;
    let bytes = handle.metadata().map_err(reading(file))?.len();
    // The reader is not sure of itself where a file is damaged: what it asserts must not end the program.
    let reader = guarded(file, || SerializedFileReader::new(handle))?.map_err(damaged)?;
    let metadata = reader.metadata().file_metadata();
    let total = u64::try_from(metadata.num_rows()).unwrap_or(0);
    let (projection, order) = project(file, metadata.schema(), names)?;
    let mut records = guarded(file, || reader.get_row_iter(Some(projection)))?.map_err(damaged)?;

    let mut meter = Meter::new(bytes);
    let mut fields = vec![Field::Null; names.len()];
    let mut number = 0;
    while let Some(record) = guarded(file, || records.next())? {
        let record: Record = record.map_err(damaged)?;
        number += 1;
        // Rows of about equal size.
        meter.advance(bytes * number / total.max(1) - bytes * (number - 1) / total.max(1), number);
        for (column, (_, field)) in record.into_columns().into_iter().enumerate() {
            if let Some(&place) = order.get(column) {
                fields[place] = field;
            }
        }
        let place = Place::Entry(number);
        if let Err(problem) = take(collector, place, &fields) {
            collector.skipped.bad(file, place, problem)?;
        }
    }
    meter.finish(number);
    collector.read(file, None, number);
    Ok(())
}

fn guarded<T>(file: &Path, read: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|_| Error::DamagedParquet(file.to_owned()))
}

/// The schema of the named columns alone, and for each of its columns the place among the names.
fn project(file: &Path, schema: &Type, names: &[&str]) -> Result<(Type, Vec<usize>), Error> {
    let fields = schema.get_fields();
    for name in names {
        column(file, fields.iter().map(|field| field.name()), name)?;
    }
    let place = |field: &Arc<Type>| names.iter().position(|name| *name == field.name());
    let kept: Vec<Arc<Type>> = fields.iter().filter(|field| place(field).is_some()).cloned().collect();
    let order = kept.iter().filter_map(place).collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(kept).build();
    Ok((projection.map_err(|source| Error::Parquet { file: file.to_owned(), source })?, order))
}

/// A name or a text.
fn text(field: &Field, what: &'static str) -> Result<String, Problem> {
    match field {
        Field::Str(text) => Ok(text.trim().to_owned()),
        Field::Bytes(bytes) => {
            bytes.as_utf8().map(|text| text.trim().to_owned()).map_err(|_| Problem::NoField(what))
        }
        _ => whole(field).map(|number| number.to_string()).ok_or(Problem::NoField(what)),
    }
}

/// A moment.
fn moment(field: &Field, times: &mut Times) -> Result<i64, Problem> {
    const MICROS_A_DAY: i64 = 86_400_000_000;
    let (kind, time) = match *field {
        Field::Str(ref text) => return times.read(text.trim()),
        Field::TimestampMillis(millis) => (Kind::Date, millis.checked_mul(1_000)),
        Field::TimestampMicros(micros) => (Kind::Date, Some(micros)),
        Field::Date(days) => (Kind::Date, i64::from(days).checked_mul(MICROS_A_DAY)),
        ref number => (Kind::Number, whole(number).and_then(|time| i64::try_from(time).ok())),
    };
    let time = time.ok_or_else(|| Problem::Time(shown(field)))?;
    times.accept(kind, time).ok_or_else(|| Problem::TimeKind(shown(field)))
}

/// A field for an error message. The reader's own text of moments knows no dates far from now, and panics.
fn shown(field: &Field) -> String {
    match field {
        Field::Date(days) => format!("{days} days since 1970"),
        Field::TimestampMillis(millis) => format!("{millis} ms since 1970"),
        Field::TimestampMicros(micros) => format!("{micros} µs since 1970"),
        field => excerpt(&field.to_string()),
    }
}

/// A rating.
fn number(field: &Field) -> Result<f64, Problem> {
    match field {
        Field::Double(number) => rating(&number.to_string()),
        Field::Float(number) => rating(&number.to_string()),
        Field::Str(text) => rating(text.trim()),
        field => whole(field).map(|number| number as f64).ok_or_else(|| Problem::Rating(shown(field))),
    }
}

/// A whole number, also where it is stored as a fraction.
fn whole(field: &Field) -> Option<i128> {
    Some(match *field {
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        // Beyond 2⁵³ a float names no single whole number.
        Field::Double(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
            number as i128
        }
        _ => return None,
    })
}
