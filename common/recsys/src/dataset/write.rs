//! Writes complete data sets, and parts of data sets that do not fit into memory.

use std::fs;
use std::io;
use std::path::Path;

use podium_files::durable;
use serde_json::{Map, Value, json};

use super::Dataset;
use super::rows::Error;
use super::user::User;
use crate::ids::{ItemId, UserId};

impl Dataset {
    /// Writes the data set into the folder `dir`. The bytes are a function of the data set.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        fs::create_dir_all(dir).map_err(|source| Error::Io {
            action: "make",
            path: dir.to_path_buf(),
            source,
        })?;
        let name = &self.name;
        let files =
            [("train.tsv", &self.train), ("validation.tsv", &self.validation), ("test.tsv", &self.test)];
        for (file_name, users) in files {
            // A file without users is refused by the reader; the validation part may be absent.
            if users.is_empty() && file_name == "validation.tsv" {
                continue;
            }
            let mut rows = Vec::new();
            for user in users {
                row(&mut rows, user.id, user.items.iter().copied()).expect("a Vec takes all that is written");
            }
            file(&dir.join(file_name), &rows)?;
        }

        let items = self.catalogue.items();
        let titles_file = dir.join(format!("{name}_titles.csv"));
        let rows = titles(items.iter().map(|item| (item.id, item.title.as_str())))
            .map_err(|source| Error::Csv { file: titles_file.clone(), source })?;
        file(&titles_file, &rows)?;

        let described =
            items.iter().filter_map(|item| Some((item.id, item.title.as_str(), item.caption.as_deref()?)));
        if let Some(text) = captions(described) {
            file(&dir.join(format!("{name}_captions.json")), text.as_bytes())?;
        }

        if !self.negatives.is_empty() {
            let mut rows = Vec::new();
            for (&user, items) in &self.negatives {
                row(&mut rows, user, items.iter().copied()).expect("a Vec takes all that is written");
            }
            file(&dir.join(format!("{name}_negatives.tsv")), &rows)?;
        }

        let reasoning: Vec<Value> = (0..)
            .zip(&self.train)
            .filter_map(|(line, user): (u64, &User)| {
                let text = self.reasoning.get(&user.id)?;
                Some(json!({ "line_idx": line, "user_id": user.id, "reasoning": text }))
            })
            .collect();
        if !reasoning.is_empty() {
            file(&dir.join(format!("{name}_reasoning.json")), pretty(&Value::Array(reasoning)).as_bytes())?;
        }
        Ok(())
    }
}

/// Writes a user's line of `train.tsv`, `validation.tsv` or `test.tsv`, oldest item first.
pub fn row(to: &mut impl io::Write, user: UserId, items: impl Iterator<Item = ItemId>) -> io::Result<()> {
    write!(to, "{}", user.0)?;
    let mut separator = '\t';
    for item in items {
        write!(to, "{separator}{}", item.0)?;
        separator = ' ';
    }
    writeln!(to)
}

/// Returns the content of `<name>_titles.csv`.
pub fn titles<'a>(items: impl Iterator<Item = (ItemId, &'a str)>) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["item", "title"])?;
    for (item, title) in items {
        writer.write_record([item.0.to_string().as_str(), title])?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(io::Error::from(error.error().kind())))
}

/// Returns the content of `<name>_captions.json` from ids, titles and captions; `None` without captions.
pub fn captions<'a>(items: impl Iterator<Item = (ItemId, &'a str, &'a str)>) -> Option<String> {
    let entries: Map<String, Value> = items
        .map(|(item, title, caption)| (item.0.to_string(), json!({ "title": title, "caption": caption })))
        .collect();
    (!entries.is_empty()).then(|| pretty(&Value::Object(entries)))
}

/// Returns indented JSON with a trailing newline.
pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Replaces a file durably.
pub(crate) fn file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    durable::write(path, bytes).map_err(|error| {
        let (durable::Error::Write { path, source } | durable::Error::Read { path, source }) = error;
        Error::Io { action: "write", path, source }
    })
}
