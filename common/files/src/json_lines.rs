//! JSON Lines files whose rows commands read, extend and write.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The reasons why a file of rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line is not a row.
    #[error("{}:{line}: expected {expected}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The expected row.
        expected: &'static str,
        /// The parser's error.
        source: serde_json::Error,
    },
}

/// A row and its line.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<T> {
    /// Line number, from 1.
    pub line: usize,
    /// Its content.
    pub value: T,
}

/// Returns all rows of a file; skips blank lines. `expected` describes a row in errors.
pub fn read<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<Vec<Row<T>>, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |(index, text): (usize, &str)| {
        let line = index + 1;
        let value = serde_json::from_str(text).map_err(|source| Error::Row {
            path: path.to_owned(),
            line,
            expected,
            source,
        })?;
        Ok(Row { line, value })
    };
    lines.map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_line_numbers_and_invalid_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, "[1]\n\n[2, 3]\n").unwrap();
        let rows: Vec<Row<Vec<u32>>> = read(&path, "a list").unwrap();
        assert_eq!(rows[1], Row { line: 3, value: vec![2, 3] });
        let error = read::<String>(&path, "a text").unwrap_err();
        assert!(error.to_string().ends_with("rows.jsonl:1: expected a text"), "{error}");
    }
}
