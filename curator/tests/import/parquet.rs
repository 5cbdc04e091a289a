//! Custom tables as Parquet, intact and damaged.

use std::fs;
use std::path::Path;

use podium_recsys::dataset::Split;
use serde_json::json;

use crate::files::{Files, items};

#[test]
fn parquet_tables_are_read_by_named_columns() {
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
    // User names are numbered in file order; items keep their numbers.
    assert_eq!(items(&data, 2, true), [9, 7, 8]);
    assert_eq!(items(&data, 1, true), [7, 9]);
    assert_eq!(statistics["made_up_ids"], json!({"users": true, "items": false}));

    fs::remove_dir_all(files.path("out")).unwrap();
    let stderr = files.refused(&format!("{table} --rating-column stars --min-rating 3"));
    assert!(stderr.contains("log.parquet, entry 5: rating \"null\", expected a number"), "{stderr}");
    let stderr = files.refused(&table.replace("who", "whom"));
    assert!(
        stderr.contains("there is no column \"whom\"; it has stars, who, when, unused, what"),
        "{stderr}"
    );

    let whole = fs::read(files.path("log.parquet")).unwrap();
    for cut in [4, whole.len() / 2, whole.len() - 9] {
        fs::write(files.path("log.parquet"), &whole[..cut]).unwrap();
        files.refused(table);
    }
    for position in (0..whole.len()).step_by(37) {
        let mut damaged = whole.clone();
        damaged[position] ^= 0x55;
        fs::write(files.path("log.parquet"), damaged).unwrap();
        let output = files.import(&format!("{table} --skip-bad-rows"));
        assert!(matches!(output.status.code(), Some(0 | 1)), "byte {position}: {output:?}");
        let _ = fs::remove_dir_all(files.path("out"));
    }
}

/// A column of a Parquet file.
#[derive(Clone, Copy)]
enum Column<'a> {
    Texts(&'a [&'a str]),
    Numbers(&'a [i64]),
    Doubles(&'a [Option<f64>]),
    /// Days, and decimals.
    Days(&'a [i32]),
    /// Nanoseconds of a day, and Julian days.
    Int96(&'a [(u64, u32)]),
    Floats(&'a [f32]),
    Flags(&'a [bool]),
    /// Optional texts in required lists.
    Lists(&'a [&'a [&'a str]]),
    /// Required numbers in required lists.
    NumberLists(&'a [&'a [i64]]),
    /// INT96 in required lists.
    Int96Lists(&'a [&'a [(u64, u32)]]),
    Nulls(usize),
}

/// Definition and repetition levels of lists, whose values are defined at level `defined`.
fn levels<T>(lists: &[&[T]], defined: i16) -> (Vec<i16>, Vec<i16>) {
    let (mut definition, mut repetition) = (Vec::new(), Vec::new());
    for list in lists {
        definition.extend(if list.is_empty() { vec![0] } else { vec![defined; list.len()] });
        repetition.push(0);
        repetition.extend(vec![1; list.len().saturating_sub(1)]);
    }
    (definition, repetition)
}

fn parquet(file: &Path, schema: &str, columns: &[Column<'_>]) {
    use parquet::basic::Compression;
    use parquet::data_type::{
        BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type, Int96, Int96Type,
    };
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    let int96 = |times: &[(u64, u32)]| -> Vec<Int96> {
        times.iter().map(|&(nanos, day)| Int96::from(vec![nanos as u32, (nanos >> 32) as u32, day])).collect()
    };
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
            Column::Int96(times) => {
                open.typed::<Int96Type>().write_batch(&int96(times), None, None).unwrap();
            }
            Column::Floats(numbers) => {
                open.typed::<FloatType>().write_batch(numbers, None, None).unwrap();
            }
            Column::Flags(flags) => {
                open.typed::<BoolType>().write_batch(flags, None, None).unwrap();
            }
            Column::Lists(lists) => {
                let values: Vec<ByteArray> = lists.concat().into_iter().map(ByteArray::from).collect();
                let (defined, repeated) = levels(lists, 2);
                open.typed::<ByteArrayType>().write_batch(&values, Some(&defined), Some(&repeated)).unwrap();
            }
            Column::NumberLists(lists) => {
                let (defined, repeated) = levels(lists, 1);
                let typed = open.typed::<Int64Type>();
                typed.write_batch(&lists.concat(), Some(&defined), Some(&repeated)).unwrap();
            }
            Column::Int96Lists(lists) => {
                let (defined, repeated) = levels(lists, 1);
                let typed = open.typed::<Int96Type>();
                typed.write_batch(&int96(&lists.concat()), Some(&defined), Some(&repeated)).unwrap();
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
fn times_out_of_range_are_bad_rows() {
    let table = "table --interactions log.parquet! --items items.csv!";
    for (kind, times) in [
        ("int32 timestamp (DATE)", Column::Days(&[i32::MAX, 1, i32::MIN, 2, 3])),
        ("int64 timestamp (TIMESTAMP_MILLIS)", Column::Numbers(&[i64::MAX, 1, i64::MIN, 2, 3])),
    ] {
        let files = Files::new(&[("items.csv", b"item,title\n10,Ten\n11,Eleven\n")]);
        let schema = format!("message log {{ required int64 user; required int64 item; required {kind}; }}");
        let (users, items) = (Column::Numbers(&[1, 1, 1, 1, 1]), Column::Numbers(&[10, 10, 11, 11, 10]));
        parquet(&files.path("log.parquet"), &schema, &[users, items, times]);
        let stderr = files.refused(table);
        assert!(
            stderr.contains("log.parquet, entry 1: timestamp ") && !stderr.contains("panicked"),
            "{stderr}"
        );
        let (_, statistics) = files.imported(&format!("{table} --skip-bad-rows"), Split::Times);
        assert_eq!(statistics["skipped"]["log.parquet: timestamp"]["count"], 2, "{kind}");
    }
}

/// Julian day of 1970-01-01.
const DAY_OF_1970: u32 = 2_440_588;

#[test]
fn int96_and_nanosecond_times_keep_their_precision() {
    let table = "table --interactions log.parquet! --items items.csv! --same-time bad";
    let int96 = [(3, 0), (1, 0), (2, 0), (0, 1), (9, 0)].map(|(nanos, day)| (nanos, DAY_OF_1970 + day));
    let nanos = int96.map(|(nanos, day)| nanos as i64 + i64::from(day - DAY_OF_1970) * 86_400_000_000_000);
    for (kind, times) in [
        ("int96 timestamp", Column::Int96(&int96)),
        ("int64 timestamp (TIMESTAMP(NANOS,true))", Column::Numbers(&nanos)),
    ] {
        let files =
            Files::new(&[("items.csv", b"item,title\n10,Ten\n11,Eleven\n12,Twelve\n13,More\n14,Last\n")]);
        let schema = format!("message log {{ required int64 user; required int64 item; required {kind}; }}");
        let (users, ids) = (Column::Numbers(&[1, 1, 1, 1, 1]), Column::Numbers(&[10, 11, 12, 13, 14]));
        parquet(&files.path("log.parquet"), &schema, &[users, ids, times]);
        let (data, _) = files.imported(table, Split::Times);
        assert_eq!(items(&data, 1, true), [11, 12, 10, 14, 13], "{kind}");
        fs::remove_dir_all(files.path("out")).unwrap();
        // They are dates, and can be split by date.
        let (data, statistics) =
            files.imported(&format!("{table} --split time --split-time 1970-01-02"), Split::Times);
        assert_eq!(items(&data, 1, false), [11, 12, 10, 14], "{kind}");
        assert_eq!(statistics["split"]["targets_begin"], 86_400_000_000_i64, "microseconds");
    }
    let files = Files::new(&[("items.csv", b"item,title\n10,Ten\n11,Eleven\n")]);
    let schema = "message log { required int64 user; required int64 item; required int96 timestamp; }";
    let (users, ids) = (Column::Numbers(&[1, 1]), Column::Numbers(&[10, 11]));
    let far = [(0, DAY_OF_1970), (0, DAY_OF_1970 + 200_000)];
    parquet(&files.path("log.parquet"), schema, &[users, ids, Column::Int96(&far)]);
    let stderr = files.refused("table --interactions log.parquet! --items items.csv!");
    assert!(stderr.contains("log.parquet, entry 2: timestamp"), "{stderr}");
}

#[test]
fn decimals_flags_and_small_floats_are_ids_and_ratings() {
    let users = Column::Floats(&[7.0, 7.0, 7.0, 7.0, 8.0, 8.0]);
    let ids = Column::Days(&[100, 200, 300, 400, 100, 200]);
    for (kind, rating) in [
        ("int32 stars (DECIMAL(3,1))", Column::Days(&[50, 35, 40, 45, 50, 40])),
        ("boolean stars", Column::Flags(&[true, false, true, true, true, true])),
        ("float stars", Column::Floats(&[5.0, 0.5, 4.0, 1.0, 1.0, 1.0])),
    ] {
        let files = Files::new(&[("items.csv", b"item,title\n1,One\n2,Two\n3,Three\n4,Four\n")]);
        let schema = format!(
            "message log {{ required float user; required int32 item (DECIMAL(5,2)); required {kind};
             required int64 timestamp; }}"
        );
        let times = Column::Numbers(&[1, 2, 3, 4, 5, 6]);
        parquet(&files.path("log.parquet"), &schema, &[users, ids, rating, times]);
        let least = if kind.starts_with("int32") { 4.0 } else { 1.0 };
        let arguments = format!(
            "table --interactions log.parquet! --items items.csv! --rating-column stars --min-rating {least}"
        );
        let (data, statistics) = files.imported(&arguments, Split::Times);
        assert_eq!(items(&data, 7, true), [1, 3, 4], "{kind}");
        assert_eq!(items(&data, 8, true), [1, 2], "{kind}");
        assert_eq!(statistics["left_out"]["interactions_rated_too_low"], 1);
    }
}

#[test]
fn lists_are_texts_of_an_item_and_interactions_of_a_user() {
    let files = Files::new(&[]);
    parquet(
        &files.path("items.parquet"),
        "message items { required int64 item; required binary title (UTF8);
         required group looks (LIST) { repeated group list { optional binary element (UTF8); } } }",
        &[
            Column::Numbers(&[1, 2, 3]),
            Column::Texts(&["One", "Two", "Three"]),
            Column::Lists(&[&["Red.", "Round."], &[], &["Blue."]]),
        ],
    );
    let day = |nanos| (nanos, DAY_OF_1970);
    for (kind, times, lost) in [
        (
            "int64",
            Column::NumberLists(&[&[30, 10, 20], &[5, 6], &[7]]),
            Column::NumberLists(&[&[30, 10], &[5, 6], &[7]]),
        ),
        (
            "int96",
            Column::Int96Lists(&[&[day(3), day(1), day(2)], &[day(5), day(6)], &[day(7)]]),
            Column::Int96Lists(&[&[day(3), day(1)], &[day(5), day(6)], &[day(7)]]),
        ),
    ] {
        let schema = format!(
            "message log {{ required int64 user;
             required group item (LIST) {{ repeated group list {{ required int64 element; }} }}
             required group timestamp (LIST) {{ repeated group list {{ required {kind} element; }} }} }}"
        );
        let write = |times: Column<'_>| {
            let lists = Column::NumberLists(&[&[1, 2, 3], &[3, 1], &[2]]);
            parquet(&files.path("log.parquet"), &schema, &[Column::Numbers(&[7, 8, 8]), lists, times]);
        };
        let table = "table --interactions log.parquet! --items items.parquet! --caption-column looks";
        write(times);
        let (data, _) = files.imported(table, Split::Times);
        assert_eq!(items(&data, 7, true), [2, 3, 1], "{kind}");
        assert_eq!(items(&data, 8, true), [3, 1, 2], "{kind}");
        let caption = |item| data.catalogue.get(podium_recsys::ItemId(item)).unwrap().caption.clone();
        assert_eq!(caption(1).as_deref(), Some("Red. Round."));
        assert_eq!(caption(2), None);
        fs::remove_dir_all(files.path("out")).unwrap();

        // A row whose lists differ in length is bad, and its values do not affect the next row.
        write(lost);
        let stderr = files.refused(table);
        assert!(stderr.contains("log.parquet, entry 1: 3 items, 2 timestamps"), "{stderr}");
        let (data, _) = files.imported(&format!("{table} --skip-bad-rows"), Split::Times);
        assert_eq!(items(&data, 8, true), [3, 1, 2], "{kind}");
        fs::remove_dir_all(files.path("out")).unwrap();
    }
}

#[test]
fn folders_of_parquet_parts_are_one_table() {
    let files = Files::new(&[("items.csv", b"item,title\n1,One\n2,Two\n3,Three\n")]);
    let schema = "message log { required int64 user; required int64 item; required int64 timestamp; }";
    for (folder, rows) in [("log/day=1", [[7, 1, 10], [7, 2, 20]]), ("log/day=2", [[7, 3, 30], [8, 1, 1]])] {
        fs::create_dir_all(files.path(folder)).unwrap();
        let column = |position: usize| rows.map(|row| row[position]);
        parquet(
            &files.path(folder).join("part-00000.snappy.parquet"),
            schema,
            &[0, 1, 2].map(column).each_ref().map(|values| Column::Numbers(values)),
        );
    }
    fs::write(files.path("log/_SUCCESS"), "").unwrap();
    let table = "table --interactions log! --items items.csv!";
    let stderr = files.refused(table);
    assert!(
        stderr.contains("day=2/part-00000.snappy.parquet, entry 2: the user's only interaction"),
        "{stderr}"
    );
    let (data, statistics) = files.imported(&format!("{table} --skip-bad-rows"), Split::Times);
    assert_eq!(items(&data, 7, true), [1, 2, 3]);
    assert_eq!(statistics["sources"][1]["files"], 2);
}
