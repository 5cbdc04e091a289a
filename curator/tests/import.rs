//! Foreign files become a folder that training reads, whatever is wrong with some of their rows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use podium_recsys::dataset::{Dataset, Options, Split};
use podium_recsys::{ItemId, UserId};
use serde_json::{Value, json};

/// A folder of foreign files.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, content) in files {
            fs::write(folder.path(name), content).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `podium-curator import <arguments> --out <folder>/out`, where arguments that end in `!` are files of the folder.
    fn import(&self, arguments: &str) -> Output {
        let arguments = arguments.split_whitespace().map(|argument| match argument.strip_suffix('!') {
            Some(name) => self.path(name).into_os_string(),
            None => argument.into(),
        });
        Command::new(env!("CARGO_BIN_EXE_podium-curator"))
            .arg("import")
            .args(arguments)
            .arg("--out")
            .arg(self.path("out"))
            .output()
            .unwrap()
    }

    fn imported(&self, arguments: &str, split: Split) -> (Dataset, Value) {
        let output = self.import(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let options = Options { min_interactions: 2, split, ..Options::default() };
        let statistics = fs::read(self.path("out/stats.json")).unwrap();
        (Dataset::load(&self.path("out"), &options).unwrap(), serde_json::from_slice(&statistics).unwrap())
    }

    fn refused(&self, arguments: &str) -> String {
        let output = self.import(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!self.path("out").exists(), "a refused import leaves nothing behind");
        let left: Vec<_> =
            fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{left:?}");
        said
    }
}

fn items(dataset: &Dataset, user: u64, test: bool) -> Vec<u64> {
    let users = if test { &dataset.test } else { &dataset.train };
    users
        .iter()
        .find(|one| one.id == UserId(user))
        .map(|user| user.items.iter().map(|item| item.0).collect())
        .unwrap_or_default()
}

const MOVIES: &[u8] = b"1|Mis\xE9rables, Les (1995)|01-Jan-1995||u\r\n2|GoldenEye|||\r\n5|Third|||\r\n";
const RATINGS: &[u8] = b"7\t2\t3\t20\r\n7\t1\t5\t10\r\n7\t5\t1\t20\r\n3\t5\t4\t9\r\n3\t1\t4\t8\r\n";
const MOVIELENS: &str = "movielens --ratings ratings! --items items!";

#[test]
fn each_layout_of_movielens_gives_the_same_data() {
    let layouts: [(&[u8], &[u8]); 3] = [
        (RATINGS, MOVIES),
        (
            b"7::2::3::20\n7::1::5::10\n7::5::1::20\n3::5::4::9\n3::1::4::8\n",
            b"1::Mis\xE9rables, Les (1995)::Drama|War\n2::GoldenEye::Action\n5::Third::\n",
        ),
        (
            "userId,movieId,rating,timestamp\n7,2,3.0,20\n7,1,5.0,10\n7,5,1.0,20\n3,5,4.0,9\n3,1,4.0,8\n".as_bytes(),
            "\u{FEFF}movieId,title,genres\n1,\"Misérables, Les (1995)\",Drama\n2,GoldenEye,\"Act\nion\"\n5,Third,x\n"
                .as_bytes(),
        ),
    ];
    for (ratings, movies) in layouts {
        let summaries = "title,summary\nGoldenEye,\"A spy, again.\"\nUnheard of,Nothing.\n";
        let files =
            Files::new(&[("ratings", ratings), ("items", movies), ("summaries", summaries.as_bytes())]);
        let (data, statistics) = files.imported(&format!("{MOVIELENS} --summaries summaries!"), Split::Times);
        assert_eq!(items(&data, 7, false), [1, 2]);
        assert_eq!(items(&data, 7, true), [1, 2, 5]);
        assert_eq!(items(&data, 3, false), [0_u64; 0], "one item is no history with a target");
        assert_eq!(items(&data, 3, true), [1, 5]);
        assert_eq!(data.catalogue.get(ItemId(1)).unwrap().title, "Misérables, Les (1995)");
        assert_eq!(data.catalogue.get(ItemId(2)).unwrap().caption.as_deref(), Some("A spy, again."));
        assert_eq!(statistics["users"], 2);
        assert_eq!(statistics["interactions"], 5);
        assert_eq!(statistics["captions_missing"], 2);
        assert_eq!(statistics["same_time"], 1);
        assert_eq!(statistics["user_lengths"]["most"], 3);
        assert_eq!(statistics["split"]["train_users"], 1);
    }
}

#[test]
fn ratings_and_rare_users_and_items_can_be_left_out() {
    let more = [RATINGS, b"4\t1\t5\t1\n4\t5\t5\t2\n4\t1\t5\t3\n"].concat();
    let files = Files::new(&[("ratings", &more), ("items", MOVIES)]);
    let (data, statistics) =
        files.imported(&format!("{MOVIELENS} --min-rating 3 --min-item-interactions 2"), Split::Times);
    // A rating of 1 goes, then item 2 with one interaction, then user 7 with one.
    assert_eq!(data.catalogue.items().iter().map(|item| item.id.0).collect::<Vec<_>>(), [1, 5]);
    assert_eq!(data.test.iter().map(|user| user.id.0).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(
        statistics["left_out"],
        json!({"interactions_rated_too_low": 1, "users_too_short": 1, "items_too_rare": 1})
    );
}

#[test]
fn microlens_pairs_with_carriage_returns_and_awkward_titles_are_counted_right() {
    // A small one of the shape; examples/generate.rs makes large ones.
    let mut pairs = String::new();
    for user in 1..=500_u64 {
        let row: Vec<String> =
            (0..5 + user % 4).map(|at| (1 + (user * 7 + at * 13) % 190).to_string()).collect();
        write!(pairs, "{user}\t{}\r\n", row.join(" ")).unwrap();
    }
    let mut titles = "item,title\r\n".to_owned();
    for item in 1..=192_u64 {
        write!(titles, "{item},\"Part {item}, \"\"quoted\"\" #tag 映画\"\r\n").unwrap();
    }
    let files = Files::new(&[("pairs", pairs.as_bytes()), ("titles", titles.as_bytes())]);
    let (data, statistics) = files.imported("microlens --pairs pairs! --titles titles!", Split::Times);
    assert_eq!((data.train.len(), data.test.len(), data.catalogue.len()), (500, 500, 192));
    assert_eq!(statistics["interactions"], 500 * 5 + 125 * (1 + 2 + 3));
    assert_eq!(statistics["items_without_interactions"], 2);
    assert_eq!(statistics["titles_missing"], 0);
    assert_eq!(data.catalogue.get(ItemId(3)).unwrap().title, "Part 3, \"quoted\" #tag 映画");
    assert_eq!(items(&data, 4, true), [29, 42, 55, 68, 81]);
}

#[test]
fn a_title_alone_can_be_left_out_of_microlens() {
    let pairs = b"user,item,timestamp\n1,1,5\n1,2,6\n1,3,7\n1,1,8\n";
    let files = Files::new(&[("pairs", pairs), ("titles", b"1,One\n2,\n3,Three\n")]);
    let said = files.refused("microlens --pairs pairs! --titles titles!");
    assert!(said.contains("titles, line 2: item \"2\" has an empty title"), "{said}");
    let (data, statistics) =
        files.imported("microlens --pairs pairs! --titles titles! --skip-bad-rows", Split::Times);
    assert_eq!(items(&data, 1, true), [1, 3, 1]);
    assert_eq!(statistics["repeated_targets"], 1);
    assert_eq!(statistics["titles_missing"], 1);
    assert_eq!(statistics["skipped"]["pairs: unknown_item"], json!({"count": 1, "first": [{"line": 3}]}));
}

#[test]
fn amazon_lines_of_all_years_are_read_and_names_become_numbers() {
    let reviews = br#"{"reviewerID": "A1", "asin": "B02", "overall": 4.0, "unixReviewTime": 30}
{"user_id": "A1", "asin": "other", "parent_asin": "B01", "rating": 5.0, "timestamp": 20}
{"user_id": "A1", "parent_asin": "0007", "rating": 5.0, "timestamp": 40, "text": "fine"}
{"user_id": "A2", "parent_asin": "B02", "rating": 1.0, "timestamp": 10}
{"user_id": "A2", "parent_asin": "B01", "rating": 2.0, "timestamp": 11}
"#;
    let metadata = br#"{"parent_asin": "B01", "title": "First", "description": ["Red.", "Round."]}
{"asin": "B02", "title": "Second\n line", "description": []}
{"asin": "0007", "title": "Third"}
"#;
    let files = Files::new(&[("reviews", reviews), ("metadata", metadata)]);
    let (data, statistics) = files
        .imported("amazon --reviews reviews! --metadata metadata! --caption-field description", Split::Times);
    assert_eq!(items(&data, 1, true), [1, 2, 3]);
    assert_eq!(items(&data, 2, true), [2, 1]);
    assert_eq!(data.catalogue.get(ItemId(1)).unwrap().caption.as_deref(), Some("Red. Round."));
    assert_eq!(data.catalogue.get(ItemId(2)).unwrap().title, "Second line");
    assert_eq!(statistics["made_up_ids"], json!({"users": true, "items": true}));
    let ids = fs::read_to_string(files.path("out/out_item_ids.csv")).unwrap();
    assert_eq!(ids, "item,original\n1,B01\n2,B02\n3,0007\n");
}

#[test]
fn tables_of_ones_own_name_their_columns_and_may_hold_dates() {
    let log = b"when;who;what\n2024-01-03;5;10\n2024-01-01T10:00:00Z;5;11\n2024-01-02;5;12\n2024-01-05;6;10\n2024-01-06;6;12\n";
    let items_table = b"key;name;looks\n10;Ten;blue\n11;Eleven;\n12;Twelve;red\n";
    let files = Files::new(&[("log.csv", log), ("items.csv", items_table)]);
    let table = "table --interactions log.csv! --items items.csv! --user-column who --item-column what \
                 --time-column when --item-id-column key --title-column name --caption-column looks";
    let (data, statistics) =
        files.imported(&format!("{table} --split time --split-time 2024-01-03"), Split::Times);
    assert_eq!(items(&data, 5, false), [11, 12]);
    assert_eq!(items(&data, 5, true), [11, 12, 10]);
    assert_eq!(items(&data, 6, true), [10, 12]);
    assert_eq!(statistics["captions_missing"], 1);
    // 2024-01-02 and 2024-01-03, in microseconds since 1970.
    assert_eq!(statistics["split"]["train_ends"], 1_704_153_600_000_000_i64);
    assert_eq!(statistics["split"]["targets_begin"], 1_704_240_000_000_000_i64);
}

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
fn bad_rows_are_refused_with_place_and_reason_or_counted() {
    let good = b"7\t1\t5\t10\n7\t2\t3\t20\n7\t5\t3\t30\n".as_slice();
    let long_title = [b"1|".as_slice(), &vec![b'x'; 1 << 20], b"|a|b|c\n2|B|||\n5|C|||\n9|D|||\n"].concat();
    for (file, content, reason, kind) in [
        ("ratings", &b"7\t1\t5\n"[..], "line 1: found 3 columns, expected 4", "columns"),
        ("ratings", b"7\t9\t5\t10\n", "line 1: item \"9\" has no row in the item file", "unknown_item"),
        ("ratings", b"7\t1\t5\tlater\n", "line 1: timestamp \"later\", expected", "timestamp"),
        ("ratings", b"7\t1\tnan\t5\n", "line 1: rating \"nan\", expected a number", "rating"),
        ("ratings", b"\t1\t5\t5\n", "line 1: no user id", "no_field"),
        ("ratings", b"8\t1\t5\t5\n", "line 1: the user's only interaction", "too_few_items"),
        (
            "ratings",
            b"7\t1\t5\t10\n",
            "line 1: the same user, item and time as line 2",
            "repeated_interaction",
        ),
        (
            "items",
            b"1|Again|||\n1|A|||\n2|B|||\n5|C|||\n",
            "line 2: item \"1\" has an earlier row",
            "repeated_item",
        ),
        ("items", b"1|A|||\n2|B|\n2|B|||\n5|C|||\n", "line 2: found 3 columns, expected 5", "columns"),
        (
            "items",
            b"1|A|||\n2|B|||\n5|C|||\n6| |||\n",
            "line 4: item \"6\" has an empty title",
            "empty_title",
        ),
        ("items", &long_title, "line 1: a title of 1048576 bytes, expected at most 4096", "long_title"),
    ] {
        let ratings = if file == "ratings" {
            [content, good].concat()
        } else {
            b"7\t2\t3\t20\n7\t5\t3\t30\n7\t2\t3\t40\n".to_vec()
        };
        let movies = if file == "items" { content } else { MOVIES };
        let files = Files::new(&[("ratings", &ratings), ("items", movies)]);
        // A repeated row is found after sorting: the later line may be the good one.
        let said = files.refused(MOVIELENS);
        let reason = if kind == "repeated_interaction" {
            "line 2: the same user, item and time as line 1"
        } else {
            reason
        };
        assert!(said.contains(&format!("{file}, {reason}")), "{kind}: {said}");
        let (data, statistics) = files.imported(&format!("{MOVIELENS} --skip-bad-rows"), Split::Times);
        assert_eq!(data.test.len(), 1, "{kind}");
        assert_eq!(statistics["skipped"][format!("{file}: {kind}")]["count"], 1, "{kind}: {statistics}");
    }
}

#[test]
fn histories_that_cannot_be_used_are_bad_rows_of_microlens() {
    let titles = b"item,title\n1,A\n2,B\n3,C\n";
    let pairs = b"1\t1 2 3\n2\t\n3\t1 9 2\n1\t2 3\n4 1 2\n5\t2\n6\t3 1\n";
    let files = Files::new(&[("pairs", pairs), ("titles", titles)]);
    let (data, statistics) =
        files.imported("microlens --pairs pairs! --titles titles! --skip-bad-rows", Split::Times);
    assert_eq!(data.test.iter().map(|user| user.id.0).collect::<Vec<_>>(), [1, 6]);
    for (kind, line) in [
        ("empty_history", 2),
        ("unknown_item", 3),
        ("repeated_user", 4),
        ("columns", 5),
        ("too_few_items", 6),
    ] {
        assert_eq!(
            statistics["skipped"][format!("pairs: {kind}")]["first"],
            json!([{"line": line}]),
            "{kind}"
        );
    }
    let by_time = Files::new(&[("pairs", pairs), ("titles", titles)]);
    let said = by_time.refused("microlens --pairs pairs! --titles titles! --skip-bad-rows --split time");
    assert!(said.contains("tells the order of each user's items but no times"), "{said}");
}

#[test]
fn junk_is_refused_without_panic() {
    for junk in
        [&b""[..], b"\n\n\n", b"\xFF\xFE\x00\x00", b"{\"a\": 1}", b"PAR1PAR1", b"\"never closed\n1,2\n"]
    {
        for arguments in [
            MOVIELENS,
            "microlens --pairs ratings! --titles items!",
            "amazon --reviews ratings! --metadata items!",
            "table --interactions ratings! --items items!",
            "table --interactions x.parquet! --items y.parquet!",
        ] {
            for skip in ["", " --skip-bad-rows"] {
                let files = Files::new(&[
                    ("ratings", junk),
                    ("items", junk),
                    ("x.parquet", junk),
                    ("y.parquet", junk),
                ]);
                let said = files.refused(&format!("{arguments}{skip}"));
                assert!(!said.contains("panicked"), "{arguments}: {said}");
            }
        }
    }
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let files = Files::new(&[("ratings", RATINGS), ("items", MOVIES)]);
    fs::create_dir(files.path("out")).unwrap();
    fs::write(files.path("out/mine.txt"), "mine").unwrap();
    let output = files.import(MOVIELENS);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"));
    assert_eq!(names(&files.path("out")), ["mine.txt"]);

    fs::remove_file(files.path("out/mine.txt")).unwrap();
    assert!(files.import(MOVIELENS).status.success(), "an empty folder is as good as none");
    assert_eq!(names(&files.path("out")), ["out_titles.csv", "stats.json", "test.tsv", "train.tsv"]);
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn held_out_users_are_nobody_of_training() {
    let mut ratings = String::new();
    for user in 1..=40 {
        write!(ratings, "{user}\t1\t5\t1\n{user}\t2\t5\t2\n").unwrap();
    }
    let files = Files::new(&[("ratings", ratings.as_bytes()), ("items", MOVIES)]);
    let (data, _) = files.imported(&format!("{MOVIELENS} --split users --test-share 0.25"), Split::Users);
    assert_eq!(data.train.len() + data.test.len(), 40);
    assert!((3..=17).contains(&data.test.len()), "{}", data.test.len());
}
