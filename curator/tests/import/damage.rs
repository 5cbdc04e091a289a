//! Random damage to a known table: an import either rejects it at the correct line, or imports all intact rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;

use podium_recsys::dataset::{Dataset, Options, Split, Validation};
use proptest::prelude::*;

use crate::files::Files;

const TABLE: &str = "table --interactions log.csv! --items items.csv!";
/// Ids that differ in more than one byte, so that one damaged byte cannot turn one into another.
const ITEMS: [&str; 8] = ["110", "220", "330", "440", "550", "660", "770", "880"];
const USERS: [&str; 4] = ["1001", "2002", "3003", "4004"];

/// A file and the byte ranges of its records, of which the first is the header.
#[derive(Debug, Clone)]
struct Table {
    bytes: Vec<u8>,
    records: Vec<Range<usize>>,
}

impl Table {
    fn new(records: &[String], end: &str) -> Self {
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        for record in records {
            let start = bytes.len();
            bytes.extend_from_slice(record.as_bytes());
            bytes.extend_from_slice(end.as_bytes());
            ranges.push(start..bytes.len());
        }
        Self { bytes, records: ranges }
    }

    /// Returns the records that contain bytes around `at`.
    fn touched(&self, at: usize) -> BTreeSet<usize> {
        let near = at.saturating_sub(1)..at + 2;
        let touched = |range: &Range<usize>| range.start < near.end && near.start < range.end;
        (0..self.records.len()).filter(|&record| touched(&self.records[record])).collect()
    }

    /// Returns the lines of a record, counted from 1, and the following one.
    fn lines(&self, record: usize) -> Range<u64> {
        let line = |at: usize| self.bytes[..at].split(|&byte| byte == b'\n').count() as u64;
        let range = &self.records[record];
        line(range.start)..line(range.end) + 1
    }
}

fn items(end: &str) -> Table {
    let titles = [
        "Plain",
        "\"Comma, and more\"",
        "\"Said \"\"hi\"\"\"",
        "Été à Nice",
        "12\" vinyl",
        "映画",
        "\"Two\nlines\"",
        "\"\"\"Q\"\"\"",
    ];
    let rows = ITEMS.iter().zip(titles).map(|(id, title)| format!("{id},{title}"));
    Table::new(&std::iter::once("item,title".to_owned()).chain(rows).collect::<Vec<_>>(), end)
}

/// Returns the expected titles.
fn titles() -> BTreeMap<&'static str, &'static str> {
    let titles =
        ["Plain", "Comma, and more", "Said \"hi\"", "Été à Nice", "12\" vinyl", "映画", "Two lines", "\"Q\""];
    ITEMS.into_iter().zip(titles).collect()
}

/// Every user interacts with every item, each user at different times.
fn log(end: &str) -> Table {
    let notes = ["", "fine", "\"good, very\"", "\"\"", "\"two\nlines\"", "déjà vu", "\"a \"\"b\"\" c\"", "x"];
    let mut rows = vec!["user,item,timestamp,note".to_owned()];
    for (number, user) in USERS.iter().enumerate() {
        for (position, item) in ITEMS.iter().enumerate() {
            let note = notes[(number * 3 + position) % notes.len()];
            rows.push(format!("{user},{item},{},{note}", 900_000_000 + position * 10));
        }
    }
    Table::new(&rows, end)
}

#[derive(Debug, Clone)]
enum Damage {
    Insert(Vec<u8>),
    Delete,
    Replace(u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = prop::sample::select(&b"\"\n\r\0,\xE9\x93\xC3x1"[..]);
    prop_oneof![
        3 => byte.clone().prop_map(|byte| Damage::Insert(vec![byte])),
        1 => prop::sample::select(&["\r\n", "\"\"", "\"\n", "\n\"", "\"\"\""][..])
            .prop_map(|text| Damage::Insert(text.as_bytes().to_vec())),
        2 => Just(Damage::Delete),
        2 => byte.prop_map(Damage::Replace),
    ]
}

/// Returns the imported pairs of user and item, and titles, under the names in the files.
fn imported(files: &Files) -> (BTreeSet<(String, String)>, BTreeMap<String, String>) {
    let options = Options {
        min_interactions: 2,
        split: Split::Times,
        validation: Validation::None,
        ..Options::default()
    };
    let data = Dataset::load(&files.path("out"), &options).unwrap();
    let names = |what: &str| -> BTreeMap<u64, String> {
        let Ok(mut ids) = csv::Reader::from_path(files.path(&format!("out/out_{what}_ids.csv"))) else {
            return BTreeMap::new();
        };
        let rows: Vec<csv::StringRecord> = ids.records().collect::<Result<_, _>>().unwrap();
        rows.iter().map(|row| (row[0].parse().unwrap(), row[1].to_owned())).collect()
    };
    let (users, items) = (names("user"), names("item"));
    let name =
        |names: &BTreeMap<u64, String>, id: u64| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
    let pairs = data
        .test
        .iter()
        .flat_map(|user| user.items.iter().map(|item| (name(&users, user.id.0), name(&items, item.0))))
        .collect();
    let titles = data.catalogue.items().iter().map(|item| (name(&items, item.id.0), item.title.clone()));
    (pairs, titles.collect())
}

/// Returns the file and the line in an error.
fn location(stderr: &str) -> Option<(&str, u64)> {
    let (file, rest) = stderr.split_once(", line")?;
    let file = file.rsplit('/').next()?;
    let number = rest.trim_start_matches('s').trim_start();
    let end = number.find(|letter: char| !letter.is_ascii_digit())?;
    Some((file, number[..end].parse().ok()?))
}

fn check(end: &str, in_log: bool, at: usize, damage: &Damage) -> Result<(), TestCaseError> {
    let (items, log) = (items(end), log(end));
    let table = if in_log { &log } else { &items };
    let at = at % table.bytes.len();
    let mut bytes = table.bytes.clone();
    match damage {
        Damage::Insert(new) => drop(bytes.splice(at..at, new.iter().copied())),
        Damage::Delete => {
            bytes.remove(at);
        }
        Damage::Replace(new) => bytes[at] = *new,
    }
    let touched = table.touched(at);
    let (log_bytes, items_bytes) = if in_log { (&bytes, &items.bytes) } else { (&log.bytes, &bytes) };
    let files = Files::new(&[("log.csv", log_bytes), ("items.csv", items_bytes)]);

    // The expected result: intact rows of items whose rows are intact.
    let whole = |record: usize, of_log: bool| of_log != in_log || !touched.contains(&record);
    let whole_items: BTreeSet<&str> = ITEMS
        .iter()
        .enumerate()
        .filter(|(position, _)| whole(position + 1, false))
        .map(|(_, item)| *item)
        .collect();
    let mut expected = BTreeSet::new();
    for (number, user) in USERS.iter().enumerate() {
        for (position, item) in ITEMS.iter().enumerate() {
            if whole(1 + number * ITEMS.len() + position, true) && whole_items.contains(item) {
                expected.insert(((*user).to_owned(), (*item).to_owned()));
            }
        }
    }
    let lines: Vec<Range<u64>> = touched.iter().map(|&record| table.lines(record)).collect();
    let name = if in_log { "log.csv" } else { "items.csv" };

    for skip in [false, true] {
        let output = files.import(&format!("{TABLE}{}", if skip { " --skip-bad-rows" } else { "" }));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        prop_assert!(matches!(output.status.code(), Some(0 | 1)), "{stderr}");
        if output.status.success() {
            let (pairs, found) = imported(&files);
            let missing: Vec<_> = expected.difference(&pairs).collect();
            prop_assert!(missing.is_empty(), "rows are lost: {missing:?}");
            let more: Vec<_> = pairs.difference(&expected).collect();
            prop_assert!(
                more.len() <= if in_log { touched.len() } else { USERS.len() * touched.len() },
                "rows appear: {more:?}"
            );
            for item in &whole_items {
                prop_assert_eq!(found.get(*item).map(String::as_str), titles().get(item).copied());
            }
            fs::remove_dir_all(files.path("out")).unwrap();
            continue;
        }
        // A damaged header may name other columns, or leave no usable row.
        if touched.contains(&0) {
            continue;
        }
        let Some((file, line)) = location(&stderr) else { panic!("no location: {stderr}") };
        let right = file == name && lines.iter().any(|lines| lines.contains(&line));
        // A damaged id that is still valid is reported where it is used.
        let missed = !in_log && file == "log.csv" && stderr.contains("has no row in the item file");
        prop_assert!(right || missed, "expected {name}, one of {lines:?}: {stderr}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn damage_is_rejected_at_its_line_or_affects_no_other_row(
        carriage_return in any::<bool>(),
        in_log in any::<bool>(),
        at in 0_usize..10_000,
        damage in damage(),
    ) {
        check(if carriage_return { "\r\n" } else { "\n" }, in_log, at, &damage)?;
    }
}

#[test]
fn the_intact_table_is_imported_completely() {
    for end in ["\n", "\r\n"] {
        let files = Files::new(&[("log.csv", &log(end).bytes), ("items.csv", &items(end).bytes)]);
        let output = files.import(TABLE);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (pairs, found) = imported(&files);
        assert_eq!(pairs.len(), USERS.len() * ITEMS.len());
        assert!(titles().iter().all(|(item, title)| found.get(*item).is_some_and(|found| found == title)));
    }
}
