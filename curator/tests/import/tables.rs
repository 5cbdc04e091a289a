//! Amazon's JSON lines, and custom tables as CSV.

use std::fs;

use podium_recsys::ItemId;
use podium_recsys::dataset::Split;
use serde_json::json;

use crate::files::{Files, MOVIELENS, MOVIES, RATINGS, items};

#[test]
fn amazon_lines_of_all_versions_are_read_and_ids_are_numbered() {
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
fn custom_tables_have_named_columns_and_may_contain_dates() {
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
fn a_caption_field_that_no_item_has_is_rejected() {
    let review =
        |asin, time| format!("{{\"user_id\": \"A\", \"asin\": \"{asin}\", \"timestamp\": {time}}}\n");
    let reviews = review(1, 5) + &review(2, 6) + &review(1, 7);
    let metadata = b"{\"asin\": \"1\", \"title\": \"One\"}\n{\"asin\": \"2\", \"title\": \"Two\", \"description\": \"Red.\"}\n";
    let files = Files::new(&[("reviews", reviews.as_bytes()), ("metadata", metadata)]);
    let amazon = "amazon --reviews reviews! --metadata metadata! --caption-field";
    for skip in ["", " --skip-bad-rows"] {
        let stderr = files.refused(&format!("{amazon} descripton{skip}"));
        assert!(stderr.contains("--caption-field \"descripton\": no item in"), "{stderr}");
        assert!(stderr.contains("its fields are asin, description, title"), "{stderr}");
    }
    let (data, _) = files.imported(&format!("{amazon} description"), Split::Times);
    assert_eq!(data.catalogue.get(ItemId(2)).unwrap().caption.as_deref(), Some("Red."));

    // The same for summaries of unknown titles.
    let summaries = b"title,sentence\nSomething else,Nothing.\n";
    let files = Files::new(&[("ratings", RATINGS), ("items", MOVIES), ("summaries", summaries)]);
    let stderr = files.refused(&format!("{MOVIELENS} --summaries summaries!"));
    assert!(stderr.contains("no title in it is the title of an item"), "{stderr}");
}

#[test]
fn timestamps_in_several_units_are_rejected() {
    let log = b"user,item,timestamp\r\n\r\n1,10,1700000000\r\n1,11,1700000001000\r\n1,10,1700000002\r\n1,11,1700000003\r\n";
    let files = Files::new(&[("log.csv", log), ("items.csv", b"item,title\n10,Ten\n11,Eleven\n")]);
    let table = "table --interactions log.csv! --items items.csv!";
    let stderr = files.refused(table);
    assert!(
        stderr.contains("log.csv, line 4: timestamp \"1700000001000\" looks like milliseconds"),
        "{stderr}"
    );
    let (_, statistics) = files.imported(&format!("{table} --skip-bad-rows"), Split::Times);
    assert_eq!(statistics["skipped"]["log.csv: timestamp_unit"]["count"], 1);
}

#[test]
fn a_repeated_column_is_rejected() {
    let table = "table --interactions log.csv! --items items.csv!";
    let log = b"user,item,timestamp,user\n1,10,5,2\n1,11,6,2\n1,10,7,2\n";
    let files = Files::new(&[("log.csv", log), ("items.csv", b"item,title\n10,Ten\n11,Eleven\n")]);
    let stderr = files.refused(table);
    assert!(stderr.contains("log.csv: there are 2 columns \"user\": expected one"), "{stderr}");

    let log = b"user,item,timestamp\n1,10,5\n1,11,6\n1,10,7\n";
    let files = Files::new(&[("log.csv", log), ("items.csv", b"item,title,title\n10,Ten,X\n11,Eleven,Y\n")]);
    let stderr = files.refused(table);
    assert!(stderr.contains("items.csv: there are 2 columns \"title\": expected one"), "{stderr}");
    // Columns that are not requested may be repeated.
    let files = Files::new(&[("log.csv", log), ("items.csv", b"item,title,x,x\n10,Ten,,\n11,Eleven,,\n")]);
    files.imported(table, Split::Times);
}

#[test]
fn invalid_dates_are_bad_rows() {
    let log = b"user,item,timestamp\n1,10,2024-02-30\n1,11,2024-03-01\n";
    let files = Files::new(&[("log.csv", log), ("items.csv", b"item,title\n10,Ten\n11,Eleven\n")]);
    let stderr = files.refused("table --interactions log.csv! --items items.csv!");
    assert!(stderr.contains("log.csv, line 2: timestamp \"2024-02-30\", expected"), "{stderr}");
}
