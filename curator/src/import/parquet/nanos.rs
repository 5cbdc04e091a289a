//! Times of a column in full precision.
//!
//! The row reader rounds INT96, as written by Spark, Hive and Impala, to milliseconds, and returns nanoseconds in INT64
//! as plain numbers. This module reads the column separately; its values are in the order of the rows.

use std::collections::VecDeque;

use parquet::basic::{LogicalType, TimeUnit};
use parquet::column::reader::ColumnReader;
use parquet::data_type::Int96;
use parquet::errors::ParquetError;
use parquet::file::reader::RowGroupReader;
use parquet::record::Field;

/// Julian day of 1970-01-01.
const DAY_OF_1970: i128 = 2_440_588;
const NANOS_A_DAY: i128 = 86_400_000_000_000;

/// Remaining times of a row group.
#[derive(Debug, Default)]
pub(super) struct Nanos {
    source: Source,
    /// Times of the current row.
    row: VecDeque<Option<i64>>,
}

/// The exact time of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exact {
    /// The row reader's value is exact.
    InField,
    /// Nanoseconds since 1970.
    Nanos(i64),
    /// Outside the years from 1678 to 2261.
    OutOfRange,
}

/// Source of exact times.
#[derive(Debug, Default)]
enum Source {
    /// The values of the row reader are exact.
    #[default]
    Rows,
    /// The row reader returns nanoseconds since 1970 as plain numbers.
    Plain,
    /// These values, without nulls; `None` is out of range.
    Int96(VecDeque<Option<i64>>),
}

impl Nanos {
    /// Reads the times of `column` in `group`.
    pub(super) fn of(group: &dyn RowGroupReader, column: &str) -> Result<Self, ParquetError> {
        let schema = group.metadata().schema_descr();
        let leaf = (0..schema.num_columns()).find(|&leaf| schema.get_column_root(leaf).name() == column);
        let Some(leaf) = leaf else { return Ok(Self::default()) };
        let descriptor = schema.column(leaf);
        let nanoseconds = matches!(
            descriptor.logical_type_ref(),
            Some(LogicalType::Timestamp(time)) if time.unit == TimeUnit::NANOS
        );
        let source = match group.get_column_reader(leaf)? {
            ColumnReader::Int96ColumnReader(mut reader) => {
                let (mut values, mut times) = (Vec::new(), VecDeque::new());
                let (mut defined, mut repeated) = (Vec::new(), Vec::new());
                loop {
                    values.clear();
                    defined.clear();
                    repeated.clear();
                    let (rows, _, _) =
                        reader.read_records(4_096, Some(&mut defined), Some(&mut repeated), &mut values)?;
                    times.extend(values.iter().map(nanoseconds_of));
                    if rows == 0 {
                        break Source::Int96(times);
                    }
                }
            }
            _ if nanoseconds => Source::Plain,
            _ => Source::Rows,
        };
        Ok(Self { source, row: VecDeque::new() })
    }

    /// Advances to the next row, whose time is at index `index` of its `fields`. Must be called for each row in order,
    /// also for rows whose values are not read completely.
    pub(super) fn begin(&mut self, index: Option<usize>, fields: &[Field]) {
        self.row.clear();
        let Some(field) = index.and_then(|index| fields.get(index)) else { return };
        if let Source::Int96(times) = &mut self.source {
            let stored = elements(field).into_iter().filter(|field| is_stored(field)).count();
            self.row.extend(times.drain(..stored.min(times.len())));
        }
    }

    /// Returns the exact time of `field`, the next value of the current row.
    pub(super) fn next(&mut self, field: &Field) -> Exact {
        match (&self.source, field) {
            (Source::Int96(_), field) if is_stored(field) => {
                self.row.pop_front().flatten().map_or(Exact::OutOfRange, Exact::Nanos)
            }
            (Source::Plain, Field::Long(nanos)) => Exact::Nanos(*nanos),
            _ => Exact::InField,
        }
    }
}

/// The values of a list, or the one value of another column.
pub(super) fn elements(field: &Field) -> Vec<&Field> {
    match field {
        Field::ListInternal(list) => list.elements().iter().collect(),
        field => vec![field],
    }
}

const fn is_stored(field: &Field) -> bool {
    !matches!(field, Field::Null)
}

/// Returns nanoseconds since 1970; `None` outside the years from 1678 to 2261.
fn nanoseconds_of(value: &Int96) -> Option<i64> {
    let &[low, high, day] = value.data() else { return None };
    let of_day = i128::from(u64::from(high) << 32 | u64::from(low));
    i64::try_from((i128::from(day.cast_signed()) - DAY_OF_1970) * NANOS_A_DAY + of_day).ok()
}
