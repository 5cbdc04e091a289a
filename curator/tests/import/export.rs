//! Exports to RecBole's atomic files and to Parquet, which are imported again.

use std::fs;
use std::process::{Command, Output};

use podium_recsys::dataset::{Dataset, Options, Split, Validation};

use crate::files::{Files, names};

/// A data set in three parts, in the folder `shop`: user 7 is in all, user 3 in training and test, user 5 in test alone.
fn shop() -> Files {
    let files = Files::new(&[]);
    fs::create_dir(files.path("shop")).unwrap();
    for (name, content) in [
        ("train.tsv", "7\t1 2\n3\t2 18446744073709551615 1\n"),
        ("validation.tsv", "7\t1 2 1 3\n"),
        ("test.tsv", "5\t3 1\n7\t1 2 1 3 2\n3\t2 18446744073709551615 1 3\n"),
        (
            "shop_titles.csv",
            "item,title\n1,\"\"\"Heroes\"\", live\"\n2,Two\tTabs\n3,12\"\" vinyl\n18446744073709551615,映画\n",
        ),
        ("shop_captions.json", "{\"2\": {\"caption\": \"A \\\"red\\\"\\n one.\"}}"),
    ] {
        fs::write(files.path("shop").join(name), content).unwrap();
    }
    files
}

fn export(files: &Files, format: &str, out: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_podium-curator"))
        .args(["export", format, "--data"])
        .arg(files.path("shop"))
        .arg("--out")
        .arg(files.path(out))
        .output()
        .unwrap()
}

fn load(files: &Files, folder: &str) -> Dataset {
    let options = Options {
        min_interactions: 2,
        split: Split::Times,
        validation: Validation::None,
        ..Options::default()
    };
    Dataset::load(&files.path(folder), &options).unwrap()
}

#[test]
fn recbole_files_have_each_interaction_once_with_its_part() {
    let files = shop();
    let output = export(&files, "recbole", "recbole");
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("shop.inter, shop.item, shop.user"), "{stdout}");
    assert!(stdout.contains("interactions, validation part   2\n"), "{stdout}");
    let read = |name: &str| fs::read_to_string(files.path("recbole").join(name)).unwrap();
    assert_eq!(
        read("shop.inter"),
        "user_id:token\titem_id:token\ttimestamp:float\tpart:token\ttarget:token\n\
         3\t2\t1\ttrain\t0\n3\t18446744073709551615\t2\ttrain\t0\n3\t1\t3\ttrain\t1\n3\t3\t4\ttest\t1\n\
         5\t3\t1\ttest\t0\n5\t1\t2\ttest\t1\n\
         7\t1\t1\ttrain\t0\n7\t2\t2\ttrain\t1\n7\t1\t3\tvalidation\t0\n7\t3\t4\tvalidation\t1\n7\t2\t5\ttest\t1\n"
    );
    assert_eq!(
        read("shop.user"),
        "user_id:token\tparts:token_seq\n3\ttrain test\n5\ttest\n7\ttrain validation test\n"
    );
    assert_eq!(
        read("shop.item"),
        "item_id:token\ttitle:token_seq\tcaption:token_seq\n1\t\"\"\"Heroes\"\", live\"\t\n\
         2\tTwo Tabs\t\"A \"\"red\"\" one.\"\n3\t\"12\"\"\"\" vinyl\"\t\n18446744073709551615\t映画\t\n"
    );

    let import =
        "recbole --interactions recbole/shop.inter! --items recbole/shop.item! --caption-field caption";
    let (data, _) = files.imported(import, Split::Times);
    let original = load(&files, "shop");
    let sorted = |mut data: Dataset| {
        data.test.sort_by_key(|user| user.id);
        (data.test, data.catalogue.items().iter().map(|item| item.id).collect::<Vec<_>>())
    };
    assert_eq!(sorted(data), sorted(original));
}

#[test]
fn parquet_files_have_the_same_sequences() {
    let files = shop();
    let output = export(&files, "parquet", "parquet");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(names(&files.path("parquet")), ["interactions.parquet", "items.parquet"]);
    let import = "table --interactions parquet/interactions.parquet! --items parquet/items.parquet! --time-column position \
                  --caption-column caption";
    let (data, _) = files.imported(import, Split::Times);
    let mut original = load(&files, "shop");
    original.test.sort_by_key(|user| user.id);
    assert_eq!(data.test, original.test);
    let texts = |data: &Dataset| -> Vec<(String, Option<String>)> {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        data.catalogue
            .items()
            .iter()
            .map(|item| (words(&item.title), item.caption.as_deref().map(words)))
            .collect()
    };
    assert_eq!(texts(&data), texts(&original));
}

#[test]
fn an_export_neither_replaces_files_nor_writes_half_of_them() {
    let files = shop();
    let output = export(&files, "parquet", "shop");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && stderr.contains("shop is not empty: expected a new"),
        "{stderr}"
    );
    fs::write(files.path("shop/test.tsv"), "7\t1 404\n").unwrap();
    let output = export(&files, "recbole", "out");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("test.tsv, line 1: "), "{stderr}");
    assert!(!files.path("out").exists());
}
