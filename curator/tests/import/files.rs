//! A folder of input files, and runs of the real program on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use podium_recsys::UserId;
use podium_recsys::dataset::{Dataset, Options, Split, Validation};
use serde_json::Value;

/// A folder of input files.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    /// Creates these files.
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, content) in files {
            fs::write(folder.path(name), content).unwrap();
        }
        folder
    }

    /// Returns the path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `podium-curator import <arguments> --out <folder>/out`, where arguments that end in `!` are files of the
    /// folder. There is no validation part, for which most users of these tests have too few items.
    pub(crate) fn import(&self, arguments: &str) -> Output {
        self.import_to(&self.path("out"), &format!("{arguments} --no-validation"))
    }

    /// Runs the same with a validation part and another `--out`, in the folder.
    pub(crate) fn import_to(&self, out: &Path, arguments: &str) -> Output {
        let arguments = arguments.split_whitespace().map(|argument| match argument.strip_suffix('!') {
            Some(name) => self.path(name).into_os_string(),
            None => argument.into(),
        });
        Command::new(env!("CARGO_BIN_EXE_podium-curator"))
            .arg("import")
            .args(arguments)
            .arg("--out")
            .arg(out)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// Returns the imported data set and its statistics.
    pub(crate) fn imported(&self, arguments: &str, split: Split) -> (Dataset, Value) {
        self.loaded(&self.import(arguments), split, Validation::None)
    }

    /// Returns the same of an import with a validation part.
    pub(crate) fn imported_in_three_parts(&self, arguments: &str, split: Split) -> (Dataset, Value) {
        self.loaded(&self.import_to(&self.path("out"), arguments), split, Validation::File)
    }

    fn loaded(&self, output: &Output, split: Split, validation: Validation) -> (Dataset, Value) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let options = Options { min_interactions: 2, split, validation, ..Options::default() };
        let statistics = fs::read(self.path("out/stats.json")).unwrap();
        (Dataset::load(&self.path("out"), &options).unwrap(), serde_json::from_slice(&statistics).unwrap())
    }

    /// Returns the error output of an import that must fail without output.
    pub(crate) fn refused(&self, arguments: &str) -> String {
        let output = self.import(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(!self.path("out").exists(), "a failed import creates nothing");
        let left: Vec<_> =
            fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{left:?}");
        stderr
    }
}

/// Returns the items of a user in one of the two files; empty without the user.
pub(crate) fn items(dataset: &Dataset, user: u64, test: bool) -> Vec<u64> {
    let users = if test { &dataset.test } else { &dataset.train };
    users
        .iter()
        .find(|one| one.id == UserId(user))
        .map(|user| user.items.iter().map(|item| item.0).collect())
        .unwrap_or_default()
}

/// Items in the format of MovieLens-100K.
pub(crate) const MOVIES: &[u8] =
    b"1|Mis\xE9rables, Les (1995)|01-Jan-1995||u\r\n2|GoldenEye|||\r\n5|Third|||\r\n";
/// Ratings in the format of MovieLens-100K.
pub(crate) const RATINGS: &[u8] =
    b"7\t2\t3\t20\r\n7\t1\t5\t10\r\n7\t5\t1\t20\r\n3\t5\t4\t9\r\n3\t1\t4\t8\r\n";
/// The arguments for them.
pub(crate) const MOVIELENS: &str = "movielens --ratings ratings! --items items!";

/// Returns the names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
