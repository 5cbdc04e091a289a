//! Data folders from other tools, and the handling of bad rows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use podium_recsys::dataset::{
    Dataset, Error, HeldOut, Location, Options, Problem, RowPolicy, Split, Validation, ValidationSource,
};
use podium_recsys::{ItemId, UserId};

const TITLES: &str = "item,title\r\n1,\"Dunes, Part \"\"Two\"\"\"\r\n2,#Reef\r\n3,Été\r\n4,Plain\r\n";
const CAPTIONS: &str =
    r#"{"1": {"title": "Dunes", "caption": "crimson desert"}, "9": {"caption": "nothing"}}"#;
const TRAIN: &str = "\u{FEFF}10\t1 2 3\r\n11\t4 3\r\n12\t2 1 4 3\r\n";
const TEST: &str = "20\t3 2 1\n";
const REASONING: &str = r#"[{"line_idx": 7, "user_id": 12, "reasoning": "likes reefs", "note": ""},
    {"line_idx": 0, "user_id": "10", "reasoning": "likes dunes"},
    {"line_idx": 0, "user_id": 20, "reasoning": "Step 1: the target is Dunes"}]"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(folder.path()).unwrap();
        folder
            .with("tiny_titles.csv", TITLES)
            .with("tiny_captions.json", CAPTIONS)
            .with("train.tsv", TRAIN)
            .with("test.tsv", TEST)
            .with("tiny_deepseek_cot.json", REASONING)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("tiny")
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.path().join(name), content).unwrap();
        self
    }

    fn load(&self, bad_rows: RowPolicy) -> Result<Dataset, Error> {
        let validation = Validation::None;
        Dataset::load(
            &self.path(),
            &Options { min_interactions: 3, bad_rows, validation, ..Options::default() },
        )
    }

    /// The problem for which the folder is rejected.
    fn refused(&self) -> (Location, Problem) {
        match self.load(RowPolicy::Refuse) {
            Err(Error::Row { location, problem, .. }) => (location, problem),
            other => panic!("expected a bad row, found {other:?}"),
        }
    }
}

#[test]
fn a_folder_in_the_released_format_is_loaded() {
    let data = Folder::new().load(RowPolicy::Refuse).unwrap();
    assert_eq!(data.name, "tiny");
    let item = |id| data.catalogue.get(ItemId(id)).unwrap();
    assert_eq!(item(1).title, "Dunes, Part \"Two\"");
    assert_eq!(item(2).title, "#Reef");
    assert_eq!(item(1).caption.as_deref(), Some("crimson desert"));
    assert_eq!(item(2).caption, None);
    assert_eq!(item(3).interactions, 2);
    assert_eq!(data.train.iter().map(|user| user.id.0).collect::<Vec<_>>(), [10, 12]);
    assert_eq!(data.train[1].target(), ItemId(3));
    assert_eq!(data.history(&data.train[1]), [ItemId(1), ItemId(4)]);
    assert_eq!(data.report.train_users_too_short, 1);
    assert_eq!(data.report.captions_without_item, 1);
    assert_eq!(data.report.items_without_caption, 3);
}

#[test]
fn reasoning_is_matched_by_user_and_never_read_for_held_out_users() {
    let data = Folder::new().load(RowPolicy::Refuse).unwrap();
    assert_eq!(data.reasoning[&UserId(12)], "likes reefs");
    assert_eq!(data.reasoning[&UserId(10)], "likes dunes");
    assert_eq!(data.reasoning.len(), 2);
    assert_eq!(data.report.reasoning_not_of_training_users, 1);
}

#[test]
fn bad_rows_are_rejected_with_location_and_reason() {
    let line = |number| Location::Line(number);
    for (file, content, location, problem) in [
        ("train.tsv", "10\t1 2 3\n11 1 2 3\n", line(2), Problem::Columns { found: 1, expected: 2 }),
        ("train.tsv", "10\t1 2 3\nx\t1 2 3\n", line(2), Problem::UserId("x".into())),
        ("train.tsv", "10\t1 02 3\n", line(1), Problem::ItemId("02".into())),
        ("train.tsv", "10\t1 2 9\n", line(1), Problem::UnknownItem(ItemId(9))),
        ("train.tsv", "10\t\n", line(1), Problem::TooFewItems(0)),
        ("train.tsv", "10\t4\n", line(1), Problem::TooFewItems(1)),
        ("train.tsv", "10\t1 2 3\n\n10\t1 2 3\n", line(3), Problem::RepeatedUser(UserId(10))),
        // Line numbers count blank lines, CRLF and line ends inside quotes.
        (
            "tiny_titles.csv",
            "\r\nitem,title\r\n\r\n1,\"A\r\n\r\nB\"\r\n\r\n2,B,C\r\n",
            line(8),
            Problem::Columns { found: 3, expected: 2 },
        ),
        ("train.tsv", "\r\n10\t1 2 3\r\n\r\nx\t1 2 3\r\n", line(4), Problem::UserId("x".into())),
        ("tiny_titles.csv", "item,title\n1,\"A\n2,B\n3,C\n4,D\n", line(2), Problem::OpenQuote),
        ("tiny_titles.csv", "item,title\n1,A\n2,B,C\n", line(3), Problem::Columns { found: 3, expected: 2 }),
        ("tiny_titles.csv", "item,title\n1,A\n1,B\n", line(3), Problem::RepeatedItem(ItemId(1))),
        ("tiny_titles.csv", "item,title\n1,\" \"\n", line(2), Problem::EmptyTitle(ItemId(1))),
        ("tiny_captions.json", r#"{"1": {"caption": ""}}"#, Location::Entry(1), Problem::NoText("caption")),
        (
            "tiny_captions.json",
            r#"{"one": {"caption": "a"}}"#,
            Location::Entry(1),
            Problem::ItemId("one".into()),
        ),
        (
            "tiny_deepseek_cot.json",
            r#"[{"user_id": 10, "reasoning": ""}]"#,
            Location::Entry(1),
            Problem::NoText("reasoning"),
        ),
        (
            "tiny_deepseek_cot.json",
            r#"[{"user_id": 10, "reasoning": "</think> 3"}]"#,
            Location::Entry(1),
            Problem::ThinkTag,
        ),
    ] {
        assert_eq!(Folder::new().with(file, content).refused(), (location, problem), "{file}: {content:?}");
    }
    let swallowing = Folder::new().with("tiny_titles.csv", "item,title\n1,\"A\n2,B\n3,C\"\n4,D\n");
    let error = swallowing.load(RowPolicy::Skip).unwrap_err();
    assert!(matches!(error, Error::AmbiguousQuote { first: 2, last: 4, .. }), "{error}");
    let latin1 = Folder::new().with("tiny_titles.csv", b"item,title\n1,\xC9t\xE9\n");
    assert_eq!(latin1.refused(), (line(2), Problem::NotUtf8));
}

#[test]
fn bad_rows_can_be_skipped_and_are_counted() {
    let rows = "x\t1\n".repeat(7);
    let data = Folder::new().with("train.tsv", format!("{rows}10\t1 2 3\n")).load(RowPolicy::Skip).unwrap();
    assert_eq!(data.train.len(), 1);
    let skipped = &data.report.skipped["train.tsv: user_id"];
    assert_eq!(skipped.count, 7);
    assert_eq!(skipped.first, [1, 2, 3, 4, 5].map(Location::Line));
}

#[test]
fn supplied_negatives_are_outside_the_whole_history() {
    let folder = || Folder::new().with("test.tsv", "20\t3 2 1\n");
    let data = folder().with("tiny_negatives.tsv", "20\t4\n10\t4\n").load(RowPolicy::Refuse).unwrap();
    assert_eq!(data.negatives[&UserId(20)], [ItemId(4)]);
    for (row, problem) in [
        ("10\t4 2\n", Problem::KnownNegative(ItemId(2))),
        ("10\t4 4\n", Problem::RepeatedItem(ItemId(4))),
        ("10\t9\n", Problem::UnknownItem(ItemId(9))),
    ] {
        assert_eq!(folder().with("tiny_negatives.tsv", row).refused(), (Location::Line(1), problem));
    }
}

#[test]
fn unusable_files_are_reported() {
    let load = |folder: Folder| folder.load(RowPolicy::Skip);
    assert!(matches!(load(Folder::new().with("train.tsv", "10\t1 2\n")), Err(Error::NoRows { .. })));
    assert!(matches!(load(Folder::new().with("tiny_titles.csv", "1,Dunes\n")), Err(Error::NoHeader { .. })));
    assert!(matches!(load(Folder::new().with("tiny_captions.json", "[1]")), Err(Error::Json { .. })));
    assert!(matches!(
        load(Folder::new().with("test.tsv", "10\t1 2 3\n")),
        Err(Error::UserInBoth { user: UserId(10), earlier: "train.tsv", later: "test.tsv" })
    ));
    let missing = Dataset::load(Path::new("nowhere/tiny"), &Options::default()).unwrap_err();
    assert!(missing.to_string().contains("tiny_titles.csv"), "{missing}");
}

#[test]
fn a_title_of_one_megabyte_is_accepted() {
    let titles = format!("item,title\n1,{}\n2,B\n3,C\n4,D\n", "x".repeat(1 << 20));
    let data = Folder::new().with("tiny_titles.csv", titles).load(RowPolicy::Refuse).unwrap();
    assert_eq!(data.catalogue.get(ItemId(1)).unwrap().title.len(), 1 << 20);
}

#[test]
fn a_written_folder_round_trips() {
    let data = Folder::new().load(RowPolicy::Refuse).unwrap();
    let copy = Folder::new();
    fs::remove_file(copy.path().join("tiny_deepseek_cot.json")).unwrap();
    data.write(&copy.path()).unwrap();
    let again = copy.load(RowPolicy::Refuse).unwrap();
    assert_eq!((again.catalogue, again.train, again.test), (data.catalogue, data.train, data.test));
    assert_eq!(again.reasoning, data.reasoning);
}

/// Reads a folder with these parts; no file is written for an empty one.
fn parts([train, validation, test]: [&str; 3], split: Split, wanted: Validation) -> Result<Dataset, Error> {
    let mut folder = Folder::new().with("train.tsv", train).with("test.tsv", test);
    if !validation.is_empty() {
        folder = folder.with("validation.tsv", validation);
    }
    let options = Options { min_interactions: 2, split, validation: wanted, ..Options::default() };
    Dataset::load(&folder.path(), &options)
}

#[test]
fn the_validation_part_is_read_if_there_is_one() {
    let rows = ["10\t1 2\n11\t4 3\n", "10\t1 2 3\n", "10\t1 2 3 4\n"];
    for wanted in [Validation::Auto, Validation::File] {
        let data = parts(rows, Split::Times, wanted).unwrap();
        assert_eq!(data.validation_source, ValidationSource::File);
        assert_eq!(data.held_out(HeldOut::Validation)[0].target(), ItemId(3));
        assert_eq!(data.held_out(HeldOut::Test)[0].target(), ItemId(4));
        let counted = |id| data.catalogue.get(ItemId(id)).unwrap().interactions;
        assert_eq!([1, 2, 3, 4].map(counted), [1, 1, 1, 1], "interactions of the training part alone");
        assert!(data.only_trained().into_iter().eq([UserId(11)]));
    }
    let ignored = parts(rows, Split::Times, Validation::None).unwrap();
    assert!(ignored.validation.is_empty() && ignored.train.len() == 2);
    let missing = parts([rows[0], "", rows[2]], Split::Times, Validation::File).unwrap_err();
    assert!(missing.to_string().contains("validation.tsv does not exist"), "{missing}");
    let both = parts(rows, Split::Users, Validation::File).unwrap_err();
    assert!(both.to_string().contains("user 10 is in both train.tsv and validation.tsv"), "{both}");
    for leaking in ["10\t1 2 3 4\n", "10\t1 2\n", "10\t2 1 3\n"] {
        let found = parts([rows[0], leaking, rows[2]], Split::Times, Validation::Auto);
        assert!(matches!(found, Err(Error::NotEarlier { .. })), "{leaking:?}: {found:?}");
    }
}

#[test]
fn a_folder_without_a_validation_part_gets_one_from_its_training_part() {
    let train = "10\t1 2 3\n11\t4 3\n";
    let data = |test| parts([train, "", test], Split::Times, Validation::Auto).unwrap();
    let (one, other) = (data("10\t1 2 3 4\n"), data("20\t4 1\n"));
    assert_eq!(
        (&one.train, &one.validation),
        (&other.train, &other.validation),
        "whatever the test part has"
    );
    assert_eq!(one.train.iter().map(|user| user.items.len()).collect::<Vec<_>>(), [2]);
    assert_eq!(one.validation.iter().map(|user| user.target().0).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(one.report.train_users_too_short, 1);
    assert_eq!(one.catalogue.get(ItemId(3)).unwrap().interactions, 0, "validation targets are not counted");
    // The reasoning about user 10 is about the last item of the row, which is now a validation target.
    assert!(one.reasoning.is_empty());

    let users: String = (100..140).map(|id| id.to_string() + "\t1 2 3\n").collect();
    let data = parts([&users, "", "20\t3 2 1\n"], Split::Users, Validation::Auto).unwrap();
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (36, 4, 1));
    let last = parts([train, "", "10\t1 2 3 4\n"], Split::Times, Validation::None).unwrap();
    assert_eq!((last.train.len(), last.validation.len()), (2, 0));
    assert_eq!(last.validation_source, ValidationSource::Nowhere);
}
