//! MicroLens: pairs or a table, and titles.

use std::fmt::Write as _;

use podium_recsys::ItemId;
use podium_recsys::dataset::Split;
use serde_json::json;

use crate::files::{Files, items};

const MICROLENS: &str = "microlens --pairs pairs! --titles titles!";

#[test]
fn microlens_pairs_with_carriage_returns_and_quoted_titles_are_counted() {
    // A small file in the format; examples/generate.rs generates large ones.
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
    let (data, statistics) = files.imported(MICROLENS, Split::Times);
    assert_eq!((data.train.len(), data.test.len(), data.catalogue.len()), (500, 500, 192));
    assert_eq!(statistics["interactions"], 500 * 5 + 125 * (1 + 2 + 3));
    assert_eq!(statistics["items_without_interactions"], 2);
    assert_eq!(statistics["titles_missing"], 0);
    assert_eq!(data.catalogue.get(ItemId(3)).unwrap().title, "Part 3, \"quoted\" #tag 映画");
    assert_eq!(items(&data, 4, true), [29, 42, 55, 68, 81]);
}

#[test]
fn an_item_without_a_title_can_be_skipped() {
    let pairs = b"user,item,timestamp\n1,1,5\n1,2,6\n1,3,7\n1,1,8\n";
    let files = Files::new(&[("pairs", pairs), ("titles", b"1,One\n2,\n3,Three\n")]);
    let stderr = files.refused(MICROLENS);
    assert!(stderr.contains("titles, line 2: item \"2\" has an empty title"), "{stderr}");
    let (data, statistics) = files.imported(&format!("{MICROLENS} --skip-bad-rows"), Split::Times);
    assert_eq!(items(&data, 1, true), [1, 3, 1]);
    assert_eq!(statistics["repeated_targets"], 1);
    assert_eq!(statistics["titles_missing"], 1);
    assert_eq!(statistics["skipped"]["pairs: unknown_item"], json!({"count": 1, "first": [{"line": 3}]}));
}

#[test]
fn unusable_histories_are_bad_rows() {
    let titles = b"item,title\n1,A\n2,B\n3,C\n";
    let pairs = b"1\t1 2 3\n2\t\n3\t1 9 2\n1\t2 3\n4 1 2\n5\t2\n6\t3 1\n";
    let files = Files::new(&[("pairs", pairs), ("titles", titles)]);
    let (data, statistics) = files.imported(&format!("{MICROLENS} --skip-bad-rows"), Split::Times);
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
    let stderr = by_time.refused(&format!("{MICROLENS} --skip-bad-rows --split time"));
    assert!(stderr.contains("has the order of each user's items but no times"), "{stderr}");
}

#[test]
fn a_title_header_is_detected_for_any_id_column_name() {
    let pairs = b"1\t10 12\n2\t12 10 11\n";
    for titles in [
        "10,Ten\n11,Eleven\n12,Twelve\n",
        "item,title\n10,Ten\n11,Eleven\n12,Twelve\n",
        "item_id,Title\n10,Ten\n11,Eleven\n12,Twelve\n",
        "\u{FEFF}ID, TITLE ,views\r\n10,Ten,3\r\n11,Eleven,4\r\n12,Twelve,5\r\n",
    ] {
        let files = Files::new(&[("pairs", pairs), ("titles", titles.as_bytes())]);
        let (data, statistics) = files.imported(MICROLENS, Split::Times);
        assert_eq!(statistics["items"], 3, "{titles:?}");
        assert_eq!(statistics["made_up_ids"], json!({"users": false, "items": false}), "{titles:?}");
        assert_eq!(data.catalogue.get(ItemId(10)).unwrap().title, "Ten");
        assert_eq!(items(&data, 2, true), [12, 10, 11]);
    }
    // Neither a header nor an item like the others.
    let files = Files::new(&[("pairs", pairs), ("titles", b"item,name\n10,Ten\n11,Eleven\n12,Twelve\n")]);
    let stderr = files.refused(&format!("{MICROLENS} --skip-bad-rows"));
    assert!(stderr.contains("titles, line 1: \"item,name\": expected `item,title`"), "{stderr}");
    // If all ids are names, the first row is an item.
    let files = Files::new(&[("pairs", b"1\ta b a\n"), ("titles", b"a,Title of a\nb,Title of b\n")]);
    let (_, statistics) = files.imported(MICROLENS, Split::Times);
    assert_eq!(statistics["made_up_ids"]["items"], true);
}

#[test]
fn titles_may_contain_other_delimiters() {
    let titles = b"10,Love; Hate; War\n11,\"Tab\there\"\n12,Twelve\n";
    let files = Files::new(&[("pairs", b"1\t10 11 12\n"), ("titles", titles)]);
    let (data, _) = files.imported(MICROLENS, Split::Times);
    assert_eq!(data.catalogue.get(ItemId(10)).unwrap().title, "Love; Hate; War");
    assert_eq!(data.catalogue.get(ItemId(11)).unwrap().title, "Tab here");
}
