//! Location of the output folder, and its permitted contents.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::files::{Files, MOVIELENS, MOVIES, RATINGS, names};

/// Files of an import with the name `x`.
const FILES: [&str; 4] = ["stats.json", "test.tsv", "train.tsv", "x_titles.csv"];

fn movielens() -> Files {
    Files::new(&[("ratings", RATINGS), ("items", MOVIES)])
}

#[test]
fn a_folder_with_content_is_not_changed() {
    let files = movielens();
    fs::create_dir(files.path("out")).unwrap();
    fs::write(files.path("out/mine.txt"), "mine").unwrap();
    let output = files.import(MOVIELENS);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"));
    assert_eq!(names(&files.path("out")), ["mine.txt"]);

    fs::remove_file(files.path("out/mine.txt")).unwrap();
    assert!(files.import(MOVIELENS).status.success(), "an empty folder is accepted");
    assert_eq!(names(&files.path("out")), ["out_titles.csv", "stats.json", "test.tsv", "train.tsv"]);
}

#[test]
fn names_that_leave_the_folder_are_rejected() {
    let files = movielens();
    for name in ["--name=../evil", "--name=a/b", "--name=.hidden", "--name="] {
        let stderr = files.refused(&format!("{MOVIELENS} {name}"));
        assert!(stderr.contains("expected a prefix of file names"), "{name}: {stderr}");
        assert_eq!(names(files.path("").as_path()), ["items", "ratings"], "{name}");
    }
}

#[test]
fn a_folder_may_be_named_by_dots() {
    let files = movielens();
    fs::create_dir(files.path("here")).unwrap();
    for (out, folder) in [("here/.", "here"), ("new/", "new"), ("here/../there/.", "there")] {
        let output = files.import_to(Path::new(out), &format!("{MOVIELENS} --no-validation --name x"));
        assert!(output.status.success(), "{out}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(names(&files.path(folder)), FILES, "{out}");
    }
    let output = files.import_to(Path::new("."), &format!("{MOVIELENS} --no-validation --name x"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"), "{output:?}");
}

#[test]
fn a_link_to_an_empty_folder_is_followed() {
    let files = movielens();
    fs::create_dir(files.path("disk")).unwrap();
    symlink("disk", files.path("link")).unwrap();
    symlink("nowhere", files.path("broken")).unwrap();
    let output = files.import_to(&files.path("link"), &format!("{MOVIELENS} --no-validation --name x"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(files.path("link").is_symlink());
    assert_eq!(names(&files.path("disk")), FILES);

    let output = files.import_to(&files.path("broken"), MOVIELENS);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is a dangling link"), "{output:?}");
}
