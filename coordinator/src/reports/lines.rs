//! A file with one JSON object per line.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use podium_files::durable;

use crate::store::Row;

#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
}

impl Lines {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Appends lines with one write per call.
    pub(super) fn append<'a>(&self, rows: impl IntoIterator<Item = &'a Row>) -> Result<(), durable::Error> {
        let text = text(rows);
        if text.is_empty() {
            return Ok(());
        }
        let opened = OpenOptions::new().create(true).append(true).open(&self.path);
        opened
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| durable::Error::Write { path: self.path.clone(), source })
    }

    /// Replaces the content of the file by these lines.
    pub(super) fn replace<'a>(&self, rows: impl IntoIterator<Item = &'a Row>) -> Result<(), durable::Error> {
        durable::write(&self.path, text(rows).as_bytes())
    }
}

fn text<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row).expect("a row is a map with text keys"));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_added_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let lines = Lines::new(folder.path().join("x.jsonl"));
        let row = |n: u32| json!({"step": n, "kl": f64::NAN}).as_object().unwrap().clone();
        lines.append([&row(1)]).unwrap();
        lines.append([&row(2)]).unwrap();
        let read = || std::fs::read_to_string(folder.path().join("x.jsonl")).unwrap();
        assert_eq!(read(), "{\"step\":1,\"kl\":null}\n{\"step\":2,\"kl\":null}\n");
        lines.replace([&row(3)]).unwrap();
        assert_eq!(read(), "{\"step\":3,\"kl\":null}\n");
    }
}
