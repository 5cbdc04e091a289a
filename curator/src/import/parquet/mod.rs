//! Reads the requested columns of Parquet tables, row by row.

mod fields;
mod nanos;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;
use podium_recsys::dataset::Location;

use super::collector::{Collector, Row};
use super::header::{Column, ItemColumns, LogColumns, column};
use super::input::Input;
use super::lines::Meter;
use super::rows::{Error, Problem};
use super::times::Times;
use fields::{id, number, prose, time};
use nanos::{Nanos, elements};

/// Reads a table of interactions. If the item is a list, time and rating are lists as well: a row contains several of
/// the user's interactions.
pub(crate) fn interactions(
    collector: &mut Collector,
    (input, file): (&Input, File),
    names: &LogColumns<'_>,
    times: &mut Times,
) -> Result<(), Error> {
    collector.begin_log(input, Location::Entry, names.rating.is_some())?;
    let mut columns = vec![names.user, names.item, names.time];
    columns.extend(names.rating);
    rows(collector, (input, file), &columns, Some(names.time), |collector, location, fields, nanos| {
        let [user, item, when, ..] = fields else { return Err(Problem::NoField("timestamp")) };
        let user = id(user, "user id")?;
        let stars = fields.get(3);
        let (items, times_of_row) = (elements(item), elements(when));
        let ratings = stars.map_or_else(Vec::new, elements);
        if items.len() != times_of_row.len() || stars.is_some_and(|_| ratings.len() != items.len()) {
            let (items, times, ratings) = (items.len(), times_of_row.len(), ratings.len());
            return Err(Problem::Lists { items, times, ratings });
        }
        if items.is_empty() {
            return Err(Problem::EmptyHistory);
        }
        let mut interactions = Vec::with_capacity(items.len());
        for (index, (item, when)) in items.into_iter().zip(times_of_row).enumerate() {
            let rating = ratings.get(index).copied().map(number).transpose()?;
            interactions.push((id(item, "item id")?, time(when, nanos, times)?, rating));
        }
        for (item, time, rating) in interactions {
            collector.interaction(location, &Row { user: &user, item: &item, time, rating })?;
        }
        Ok(())
    })
}

/// Reads a table of items.
pub(crate) fn items(
    collector: &mut Collector,
    (input, file): (&Input, File),
    names: &ItemColumns<'_>,
) -> Result<(), Error> {
    let mut columns = vec![names.id, names.title];
    columns.extend(names.caption);
    rows(collector, (input, file), &columns, None, |collector, _, fields, _| {
        let [key, title, ..] = fields else { return Err(Problem::NoField("title")) };
        let caption = fields.get(2).map(prose);
        collector.item(&id(key, "item id")?, &prose(title), caption.as_deref())
    })
}

/// Calls `take` with the named columns of each row, in the order of the names, and exact times of the column `exact`.
fn rows(
    collector: &mut Collector,
    (input, file): (&Input, File),
    names: &[&str],
    exact: Option<&str>,
    mut take: impl FnMut(&mut Collector, Location, &[Field], &mut Nanos) -> Result<(), Problem>,
) -> Result<(), Error> {
    let path = input.path.as_path();
    let damaged = |source: ParquetError| Error::Parquet { file: path.to_owned(), source };
    // The reader panics on damaged files; the panic must not end the program.
    let reader = guarded(path, || SerializedFileReader::new(file))?.map_err(damaged)?;
    let metadata = reader.metadata().file_metadata();
    let total = u64::try_from(metadata.num_rows()).unwrap_or(0);
    let mut fields = vec![Field::Null; names.len()];
    let (projection, order) = project(input, metadata.schema(), names, &mut fields)?;

    let bytes = input.stored_bytes()?;
    let mut meter = Meter::new(bytes);
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let group = guarded(path, || reader.get_row_group(group))?.map_err(damaged)?;
        let nanos = guarded(path, || Nanos::of(&*group, exact.unwrap_or_default()))?;
        let mut nanos = nanos.map_err(damaged)?;
        let records = guarded(path, || RowIter::from_row_group(Some(projection.clone()), &*group))?;
        let mut records = records.map_err(damaged)?;
        while let Some(record) = guarded(path, || records.next())? {
            let record: Record = record.map_err(damaged)?;
            number += 1;
            // Assumes rows of equal size.
            meter.advance(bytes * number / total.max(1) - bytes * (number - 1) / total.max(1), number);
            for (column, (_, field)) in record.into_columns().into_iter().enumerate() {
                if let Some(&index) = order.get(column) {
                    fields[index] = field;
                }
            }
            let location = Location::Entry(number);
            nanos.begin(exact.and_then(|exact| names.iter().position(|name| *name == exact)), &fields);
            if let Err(problem) = take(collector, location, &fields, &mut nanos) {
                collector.skipped.bad(input, location, problem)?;
            }
        }
    }
    meter.finish(number);
    collector.read(None, number, 0);
    Ok(())
}

fn guarded<T>(file: &Path, read: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|_| Error::DamagedParquet(file.to_owned()))
}

/// Returns the schema of the named columns, and for each of its columns the index among the names. Columns of partition
/// folders are written to `fields`.
fn project(
    input: &Input,
    schema: &Type,
    names: &[&str],
    fields: &mut [Field],
) -> Result<(Type, Vec<usize>), Error> {
    let columns = schema.get_fields();
    for (name, field) in names.iter().zip(fields) {
        let found = columns.iter().map(|column| column.name());
        if let Column::Fixed(value) = column(&input.path, found, &input.partition, name)? {
            *field = Field::Str(value);
        }
    }
    let position = |column: &Arc<Type>| names.iter().position(|name| *name == column.name());
    let kept: Vec<Arc<Type>> = columns.iter().filter(|column| position(column).is_some()).cloned().collect();
    let order = kept.iter().filter_map(position).collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(kept).build();
    Ok((projection.map_err(|source| Error::Parquet { file: input.path.clone(), source })?, order))
}
