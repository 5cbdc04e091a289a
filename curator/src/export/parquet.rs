//! Parquet tables, in row groups of a bounded number of rows.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use podium_files::durable;
use podium_recsys::Dataset;

use super::interactions::Sequence;

/// Number of rows in a row group, which bounds the memory.
const ROWS_PER_GROUP: usize = 1 << 20;

const INTERACTIONS: &str = "message interactions {
    required int64 user (INTEGER(64, false));
    required int64 item (INTEGER(64, false));
    required int32 position;
    required binary part (STRING);
    required boolean target;
}";
const ITEMS: &str = "message items {
    required int64 item (INTEGER(64, false));
    required binary title (STRING);
    optional binary caption (STRING);
    required int64 training_interactions;
}";

type Writer<'a> = SerializedFileWriter<&'a mut File>;

/// Writes the files and returns their names.
pub(super) fn write(
    folder: &Path,
    data: &Dataset,
    sequences: &[Sequence<'_>],
) -> std::result::Result<Vec<String>, durable::Error> {
    let files = ["interactions.parquet", "items.parquet"];
    table(&folder.join(files[0]), INTERACTIONS, |writer| {
        let mut rows = sequences
            .iter()
            .flat_map(|sequence| sequence.interactions().map(|one| (sequence.user.0.cast_signed(), one)))
            .peekable();
        while rows.peek().is_some() {
            let group: Vec<_> = rows.by_ref().take(ROWS_PER_GROUP).collect();
            let mut to = writer.next_row_group()?;
            column::<Int64Type>(&mut to, group.iter().map(|(user, _)| Some(*user)))?;
            column::<Int64Type>(&mut to, group.iter().map(|(_, one)| Some(one.item.0.cast_signed())))?;
            column::<Int32Type>(&mut to, group.iter().map(|(_, one)| Some(one.position.cast_signed())))?;
            column::<ByteArrayType>(&mut to, group.iter().map(|(_, one)| text(Some(one.part.name()))))?;
            column::<BoolType>(&mut to, group.iter().map(|(_, one)| Some(one.target)))?;
            to.close()?;
        }
        Ok(())
    })?;
    table(&folder.join(files[1]), ITEMS, |writer| {
        for group in data.catalogue.items().chunks(ROWS_PER_GROUP) {
            let mut to = writer.next_row_group()?;
            column::<Int64Type>(&mut to, group.iter().map(|item| Some(item.id.0.cast_signed())))?;
            column::<ByteArrayType>(&mut to, group.iter().map(|item| text(Some(&item.title))))?;
            column::<ByteArrayType>(&mut to, group.iter().map(|item| text(item.caption.as_deref())))?;
            column::<Int64Type>(&mut to, group.iter().map(|item| Some(item.interactions.cast_signed())))?;
            to.close()?;
        }
        Ok(())
    })?;
    Ok(files.map(str::to_owned).into())
}

fn text(text: Option<&str>) -> Option<ByteArray> {
    text.map(ByteArray::from)
}

/// Writes the next column of a row group; `None` is null.
fn column<T: DataType>(
    to: &mut SerializedRowGroupWriter<'_, &mut File>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<()> {
    let missing = || ParquetError::General("the schema has fewer columns than are written".to_owned());
    let mut column = to.next_column()?.ok_or_else(missing)?;
    let mut levels = Vec::new();
    let present: Vec<T::T> =
        values.inspect(|value| levels.push(i16::from(value.is_some()))).flatten().collect();
    // The writer ignores the levels of required columns.
    column.typed::<T>().write_batch(&present, Some(&levels), None)?;
    column.close()
}

/// Writes a table with this schema.
fn table(
    path: &Path,
    schema: &str,
    fill: impl FnOnce(&mut Writer<'_>) -> Result<()>,
) -> std::result::Result<(), durable::Error> {
    let write = |file: &mut File| {
        let schema = Arc::new(parse_message_type(schema)?);
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = Writer::new(file, schema, Arc::new(properties))?;
        fill(&mut writer)?;
        writer.close().map(drop)
    };
    durable::write_with(path, |file| write(file).map_err(io::Error::other))
}
