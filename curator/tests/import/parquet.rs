//! Tables of one's own as Parquet, whole and damaged.

use std::fs;
use std::path::Path;

use podium_recsys::dataset::Split;
use serde_json::json;

use crate::files::{Files, items};

#[test]
fn parquet_tables_are_read_by_the_columns_that_are_named() {
    let files = Files::new(&[]);
    parquet(
        &files.path("log.parquet"),
        "message log { optional double stars; required binary who (UTF8); required int64 when (TIMESTAMP_MILLIS);
         optional int32 unused; required int64 what; }",
        &[
            Column::Doubles(&[Some(5.0), Some(4.0), Some(1.0), Some(3.0), None]),
            Column::Texts(&["b", "a", "a", "a", "b"]),
            Column::Numbers(&[50, 30, 20, 10, 60]),
            Column::Nulls(5),
            Column::Numbers(&[7, 8, 7, 9, 9]),
        ],
    );
    parquet(
        &files.path("items.parquet"),
        "message items { required binary name (UTF8); required int64 key; }",
        &[Column::Texts(&["Seven", "Eight", "Nine"]), Column::Numbers(&[7, 8, 9])],
    );
    let table = "table --interactions log.parquet! --items items.parquet! --user-column who --item-column what \
                 --time-column when --item-id-column key --title-column name";
    let (data, statistics) = files.imported(table, Split::Times);
    // Users are texts and are numbered in the order of the file; items keep their numbers.
    assert_eq!(items(&data, 2, true), [9, 7, 8]);
    assert_eq!(items(&data, 1, true), [7, 9]);
    assert_eq!(statistics["made_up_ids"], json!({"users": true, "items": false}));

    fs::remove_dir_all(files.path("out")).unwrap();
    let said = files.refused(&format!("{table} --rating-column stars --min-rating 3"));
    assert!(said.contains("log.parquet, entry 5: rating \"null\", expected a number"), "{said}");
    let said = files.refused(&table.replace("who", "whom"));
    assert!(said.contains("there is no column \"whom\"; it has stars, who, when, unused, what"), "{said}");

    let whole = fs::read(files.path("log.parquet")).unwrap();
    for cut in [4, whole.len() / 2, whole.len() - 9] {
        fs::write(files.path("log.parquet"), &whole[..cut]).unwrap();
        files.refused(table);
    }
    for place in (0..whole.len()).step_by(37) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        fs::write(files.path("log.parquet"), damaged).unwrap();
        let output = files.import(&format!("{table} --skip-bad-rows"));
        assert!(matches!(output.status.code(), Some(0 | 1)), "byte {place}: {output:?}");
        let _ = fs::remove_dir_all(files.path("out"));
    }
}

/// A column of a Parquet file.
enum Column<'a> {
    Texts(&'a [&'a str]),
    Numbers(&'a [i64]),
    Doubles(&'a [Option<f64>]),
    Days(&'a [i32]),
    Nulls(usize),
}

fn parquet(file: &Path, schema: &str, columns: &[Column<'_>]) {
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let schema = parse_message_type(schema).unwrap();
    let mut writer =
        SerializedFileWriter::new(fs::File::create(file).unwrap(), schema.into(), properties.into()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in columns {
        let mut open = group.next_column().unwrap().unwrap();
        match column {
            Column::Texts(texts) => {
                let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
                open.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            }
            Column::Numbers(numbers) => {
                open.typed::<Int64Type>().write_batch(numbers, None, None).unwrap();
            }
            Column::Doubles(numbers) => {
                let values: Vec<f64> = numbers.iter().flatten().copied().collect();
                let levels: Vec<i16> = numbers.iter().map(|number| i16::from(number.is_some())).collect();
                open.typed::<DoubleType>().write_batch(&values, Some(&levels), None).unwrap();
            }
            Column::Days(days) => {
                open.typed::<Int32Type>().write_batch(days, None, None).unwrap();
            }
            Column::Nulls(count) => {
                open.typed::<Int32Type>().write_batch(&[], Some(&vec![0; *count]), None).unwrap();
            }
        }
        open.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}
#[test]
fn moments_that_no_clock_reaches_are_bad_rows() {
    let table = "table --interactions log.parquet! --items items.csv!";
    for (kind, times) in [
        ("int32 timestamp (DATE)", Column::Days(&[i32::MAX, 1, i32::MIN, 2, 3])),
        ("int64 timestamp (TIMESTAMP_MILLIS)", Column::Numbers(&[i64::MAX, 1, i64::MIN, 2, 3])),
    ] {
        let files = Files::new(&[("items.csv", b"item,title\n10,Ten\n11,Eleven\n")]);
        let schema = format!("message log {{ required int64 user; required int64 item; required {kind}; }}");
        let (users, items) = (Column::Numbers(&[1, 1, 1, 1, 1]), Column::Numbers(&[10, 10, 11, 11, 10]));
        parquet(&files.path("log.parquet"), &schema, &[users, items, times]);
        let said = files.refused(table);
        assert!(said.contains("log.parquet, entry 1: timestamp ") && !said.contains("panicked"), "{said}");
        let (_, statistics) = files.imported(&format!("{table} --skip-bad-rows"), Split::Times);
        assert_eq!(statistics["skipped"]["log.parquet: timestamp"]["count"], 2, "{kind}");
    }
}
