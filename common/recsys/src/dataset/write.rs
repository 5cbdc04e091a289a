//! Writing a data set in the format it is read from.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::rows::Error;
use super::{Dataset, User};

/// Writes all files of `dataset` into `dir`, which is made if need be.
pub(super) fn folder(dataset: &Dataset, dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| Error::Io {
        action: "make",
        path: dir.to_path_buf(),
        source,
    })?;
    let name = &dataset.name;
    file(&dir.join("train.tsv"), interactions(&dataset.train).as_bytes())?;
    file(&dir.join("test.tsv"), interactions(&dataset.test).as_bytes())?;

    let titles = dir.join(format!("{name}_titles.csv"));
    let rows = titles_csv(dataset).map_err(|source| Error::Csv { file: titles.clone(), source })?;
    file(&titles, &rows)?;

    let captions: Map<String, Value> = dataset
        .catalogue
        .items()
        .iter()
        .filter_map(|item| {
            let caption = item.caption.as_ref()?;
            Some((item.id.0.to_string(), json!({ "title": item.title, "caption": caption })))
        })
        .collect();
    if !captions.is_empty() {
        file(&dir.join(format!("{name}_captions.json")), pretty(&Value::Object(captions)).as_bytes())?;
    }

    let reasoning: Vec<Value> = (0..)
        .zip(&dataset.train)
        .filter_map(|(line, user): (u64, &User)| {
            let text = dataset.reasoning.get(&user.id)?;
            Some(json!({ "line_idx": line, "user_id": user.id, "reasoning": text }))
        })
        .collect();
    if !reasoning.is_empty() {
        file(&dir.join(format!("{name}_reasoning.json")), pretty(&Value::Array(reasoning)).as_bytes())?;
    }
    Ok(())
}

fn interactions(users: &[User]) -> String {
    let mut rows = String::new();
    for user in users {
        let items: Vec<String> = user.items.iter().map(|item| item.0.to_string()).collect();
        writeln!(rows, "{}\t{}", user.id.0, items.join(" ")).expect("a String takes all that is written");
    }
    rows
}

fn titles_csv(dataset: &Dataset) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["item", "title"])?;
    for item in dataset.catalogue.items() {
        writer.write_record([item.id.0.to_string().as_str(), item.title.as_str()])?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(io::Error::from(error.error().kind())))
}

/// Indented JSON with a newline at its end.
pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Writes a file so that it is either the old one or the whole new one, whatever happens meanwhile.
pub(crate) fn file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    let unfinished = Path::new(&unfinished);
    let write = || -> io::Result<()> {
        let mut file = File::create(unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(unfinished, path)
    };
    write().map_err(|source| Error::Io { action: "write", path: path.to_path_buf(), source })
}
