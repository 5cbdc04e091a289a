//! Stored files: compressed, in archives, in parts, and several of them.

use std::fs;
use std::io::{Cursor, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use podium_recsys::dataset::Split;
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::files::{Files, MOVIELENS, MOVIES, RATINGS, items};

const TABLE: &str = "table --interactions log --items items.csv";
const ITEMS: &[u8] = b"item,title\n1,One\n2,Two\n3,Three\n4,Four\n";

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Returns a frame with a checksum.
fn zstandard(content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn archive(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_directory("ml-100k/", SimpleFileOptions::default()).unwrap();
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn histories(files: &Files, arguments: &str) -> (Vec<Vec<u64>>, Value) {
    let (data, statistics) = files.imported(arguments, Split::Times);
    fs::remove_dir_all(files.path("out")).unwrap();
    ([3, 7].map(|user| items(&data, user, true)).to_vec(), statistics)
}

#[test]
fn compressed_files_and_archives_are_decompressed() {
    let plain = Files::new(&[("ratings", RATINGS), ("items", MOVIES)]);
    let (expected, _) = histories(&plain, MOVIELENS);
    // Two gzip members, and two Zstandard frames, are one file.
    let half = 20;
    let members = [gzip(&RATINGS[..half]), gzip(&RATINGS[half..])].concat();
    let frames = [zstandard(&RATINGS[..half]), zstandard(&RATINGS[half..])].concat();
    let stored = archive(&[("u.data", RATINGS)], CompressionMethod::Stored);
    let deflated =
        archive(&[("ml-100k/u.data", RATINGS), ("__MACOSX/._u.data", b"x")], CompressionMethod::Deflated);
    let content = |archive: &[u8]| {
        let name = archive.windows(6).position(|bytes| bytes == b"u.data").unwrap();
        name + b"u.data".len() + 8
    };
    let (in_stored, in_deflated) = (content(&stored), content(&deflated));
    for (compressed, position) in
        [(gzip(RATINGS), 15), (members, 15), (frames, 15), (stored, in_stored), (deflated, in_deflated)]
    {
        let files = Files::new(&[("ratings", &compressed), ("items", &gzip(MOVIES))]);
        let (found, statistics) = histories(&files, MOVIELENS);
        assert_eq!(found, expected);
        assert_eq!(statistics["sources"][0]["encoding"], "latin-1");

        // Truncated or damaged files are rejected even with --skip-bad-rows.
        let mut damaged = compressed.clone();
        damaged[position] ^= 0x10;
        for bad in [&compressed[..compressed.len() - 12], &damaged] {
            let files = Files::new(&[("ratings", bad), ("items", MOVIES)]);
            let output = files.import(&format!("{MOVIELENS} --skip-bad-rows"));
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains("cannot read"), "{stderr}");
        }
    }
}

#[test]
fn a_file_of_an_archive_is_named_by_its_path() {
    let plain = Files::new(&[("ratings", RATINGS), ("items", MOVIES)]);
    let (expected, _) = histories(&plain, MOVIELENS);
    let both =
        archive(&[("ml-100k/u.data", RATINGS), ("ml-100k/u.item", MOVIES)], CompressionMethod::Deflated);
    let files = Files::new(&[("ml-100k.zip", &both)]);
    let movielens = "movielens --ratings ml-100k.zip/ml-100k/u.data! --items ml-100k.zip/ml-100k/u.item!";
    assert_eq!(histories(&files, movielens).0, expected);

    let stderr = files.refused("movielens --ratings ml-100k.zip! --items ml-100k.zip/ml-100k/u.item!");
    assert!(
        stderr.contains("ml-100k.zip contains ml-100k/u.data, ml-100k/u.item: expected one file"),
        "{stderr}"
    );
    let stderr = files.refused("movielens --ratings ml-100k.zip/u.data! --items ml-100k.zip/ml-100k/u.item!");
    assert!(stderr.contains("the path of one of them"), "{stderr}");
}

#[test]
fn folders_of_parts_are_one_table_and_hive_folders_are_columns() {
    let files = Files::new(&[("items.csv", ITEMS)]);
    for (folder, name, content) in [
        ("log/user=7/day=2024-01-02", "part-00000.csv", "item,stars\n1,5\n2,4\n"),
        ("log/user=7/day=2024-01-01%2010%3A00", "part-00000.csv", "item,stars\n3,5\n"),
        ("log/user=9/day=2024-01-01", "part-00001.csv", "item,stars\n4,5\n1,1\n"),
        ("log/_temporary", "part-00000.csv", "nothing\n"),
        ("log", "_SUCCESS", ""),
        ("log", ".part-00000.csv.crc", "\0\0"),
    ] {
        fs::create_dir_all(files.path(folder)).unwrap();
        fs::write(files.path(folder).join(name), content).unwrap();
    }
    let table = format!("{TABLE} --time-column day --same-time item");
    let (data, statistics) = files.imported(&table, Split::Times);
    assert_eq!(items(&data, 7, true), [3, 1, 2]);
    assert_eq!(items(&data, 9, true), [1, 4]);
    assert_eq!(
        statistics["sources"][1],
        json!({"file": "log", "files": 3, "encoding": "UTF-8", "rows": 5, "rows_in_fallback_encoding": 0})
    );
    fs::remove_dir_all(files.path("out")).unwrap();
    let stderr = files.refused(&format!("{TABLE} --time-column date"));
    assert!(stderr.contains("there is no column \"date\"; it has item, stars, user, day"), "{stderr}");

    // Bad rows are reported and counted by part.
    fs::write(files.path("log/user=9/day=2024-01-01/part-00001.csv"), "item,stars\n4,5\n\n1\n1,5\n").unwrap();
    let stderr = files.refused(&table);
    assert!(stderr.contains("user=9/day=2024-01-01/part-00001.csv, line 4: found 1 columns"), "{stderr}");
    let (_, statistics) = files.imported(&format!("{table} --skip-bad-rows"), Split::Times);
    let skipped = &statistics["skipped"]["log/user=9/day=2024-01-01/part-00001.csv: columns"];
    assert_eq!(*skipped, json!({"count": 1, "first": [{"line": 4}]}));

    let empty = Files::new(&[("items.csv", ITEMS)]);
    fs::create_dir_all(empty.path("log")).unwrap();
    fs::write(empty.path("log/_SUCCESS"), "").unwrap();
    assert!(empty.refused(TABLE).contains("log: no data file"));
}

#[test]
fn several_logs_are_combined_and_rows_are_reported_by_file() {
    let files = Files::new(&[
        ("items.csv", b"item,title\n1,One\n2,Two\n"),
        ("more.csv", b"title,item\nThree,3\n"),
        ("one.csv", b"user,item,timestamp\n7,1,10\n8,2,5\n"),
        ("two.csv", b"item;timestamp;user\n2;20;7\n3;30;7\n3;4;8\n"),
        ("again.csv", b"user,item,timestamp\n8,3,40\n\n7,1,10\n"),
    ]);
    let table = "table --items items.csv! more.csv! --interactions one.csv! two.csv!";
    let (data, statistics) = files.imported(table, Split::Times);
    assert_eq!(items(&data, 7, true), [1, 2, 3]);
    assert_eq!(items(&data, 8, true), [3, 2]);
    assert_eq!(statistics["sources"].as_array().unwrap().len(), 4);
    fs::remove_dir_all(files.path("out")).unwrap();

    let stderr = files.refused(&format!("{table} --interactions again.csv!"));
    assert!(
        stderr.contains("again.csv, line 4: the same user, item and time as line 2 of one.csv"),
        "{stderr}"
    );
    let (data, statistics) =
        files.imported(&format!("{table} --interactions again.csv! --skip-bad-rows"), Split::Times);
    assert_eq!(items(&data, 8, true), [3, 2, 3]);
    assert_eq!(statistics["skipped"]["again.csv: repeated_interaction"]["count"], 1);
}

#[test]
fn a_row_of_an_archive_has_the_name_of_the_inner_file() {
    let bad = [RATINGS, b"7\t1\t5\n"].concat();
    let one = archive(&[("ml-100k/u.data", &bad)], CompressionMethod::Deflated);
    let files = Files::new(&[("ml.zip", &one), ("items", MOVIES)]);
    let stderr = files.refused("movielens --ratings ml.zip! --items items!");
    assert!(stderr.contains("ml.zip/ml-100k/u.data, line 6: found 3 columns, expected 4"), "{stderr}");
}

#[test]
fn a_truncated_file_is_refused_with_the_last_line() {
    let lines: Vec<u8> = (0..100_000).flat_map(|line| format!("7\t1\t5\t{line}\n").into_bytes()).collect();
    let zip = archive(&[("u.data", &lines)], CompressionMethod::Deflated);
    for (name, compressed) in [("u.data.gz", gzip(&lines)), ("u.data.zst", zstandard(&lines)), ("u.zip", zip)]
    {
        // The directory of an archive is at its end: its content is damaged instead.
        let mut cut = compressed.clone();
        if name == "u.zip" {
            let half = cut.len() / 2;
            cut[half..half + 8].fill(0xFF);
        } else {
            cut.truncate(compressed.len() / 2);
        }
        let files = Files::new(&[(name, &cut), ("items", MOVIES)]);
        for encoding in ["auto", "utf-8"] {
            let import =
                format!("movielens --ratings {name}! --items items! --skip-bad-rows --encoding {encoding}");
            let output = files.import(&import);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
            let inner = if name == "u.zip" { "u.zip/u.data" } else { name };
            let (_, after) =
                stderr.split_once(&format!("{inner} after line ")).unwrap_or_else(|| panic!("{stderr}"));
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            assert!((1..=100_000).contains(&digits.parse::<u32>().unwrap()), "{stderr}");
            assert!(!files.path("out").exists());
        }
    }
}

#[test]
fn files_of_other_kinds_are_named() {
    let mut tar = vec![0; 512];
    tar[..6].copy_from_slice(b"u.data");
    tar[257..262].copy_from_slice(b"ustar");
    for (content, message) in [
        (
            b"\x80\x04\x95\x1f\0".to_vec(),
            "is a Python pickle, which is a program: write it as Parquet or CSV",
        ),
        (b"BZh91AY&SY".to_vec(), "is compressed with bzip2: decompress it first"),
        (b"\xFD7zXZ\0\0".to_vec(), "is compressed with xz: decompress it first"),
        (gzip(&tar), "is a tar archive: extract it first"),
        (tar, "is a tar archive: extract it first"),
    ] {
        let files = Files::new(&[("ratings", &content), ("items", MOVIES)]);
        let stderr = files.refused(&format!("{MOVIELENS} --skip-bad-rows"));
        assert!(stderr.contains("ratings ") && stderr.contains(message), "{stderr}");
    }
}
