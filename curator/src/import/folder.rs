//! Writing the folder that training reads: all of it or nothing.
//!
//! Files are written into a hidden folder beside the one that is wanted, read back with the reader that training uses,
//! and only then moved into place by one rename.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use podium_recsys::dataset::{self, Dataset, write};
use podium_recsys::{ItemId, UserId};
use podium_runtime::durable;

use super::arrange::Sequences;
use super::collector::Text;
use super::ids::Numbering;
use super::rows::Error;
use super::split::{Kind, Plan};
use super::statistics::Statistics;

/// Where things go.
#[derive(Debug)]
pub(crate) struct Target {
    folder: PathBuf,
    name: String,
    stage: PathBuf,
}

/// What is written.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) sequences: Sequences,
    pub(crate) plan: Plan,
    pub(crate) users: Numbering,
    pub(crate) items: Numbering,
    pub(crate) texts: Vec<Text>,
}

impl Target {
    /// The folder `folder`, which must be absent or empty, for a data set called `name` or like the folder.
    pub(crate) fn new(folder: &Path, name: Option<&str>) -> Result<Self, Error> {
        let own = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let own = own.ok_or_else(|| Error::Nameless(folder.to_owned()))?;
        match fs::read_dir(folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Error::NotEmpty(folder.to_owned()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { action: "open", path: folder.to_owned(), source }),
        }
        let stage = folder.with_file_name(format!(".{own}.{}.tmp", std::process::id()));
        Ok(Self { folder: folder.to_owned(), name: name.map_or(own, str::to_owned), stage })
    }

    /// The data set's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Writes, checks and moves into place.
    pub(crate) fn write(&self, content: Content, statistics: &Statistics, kind: Kind) -> Result<(), Error> {
        let result = self.stage(content, statistics, kind).and_then(|()| {
            fs::rename(&self.stage, &self.folder).map_err(|source| Error::Io {
                action: "move the finished files to",
                path: self.folder.clone(),
                source,
            })
        });
        if result.is_err() {
            // The error is the one to report; a hidden folder that stays does no harm.
            let _ = fs::remove_dir_all(&self.stage);
        }
        result?;
        Ok(durable::sync_folder(self.folder.parent().unwrap_or(Path::new("")))?)
    }

    fn stage(&self, content: Content, statistics: &Statistics, kind: Kind) -> Result<(), Error> {
        durable::create_folder(&self.stage)?;
        content.write(&self.stage, &self.name)?;
        // What was in memory makes room for what is read back.
        drop(content);
        let file = &self.stage.join("stats.json");
        let text = serde_json::to_string_pretty(statistics)
            .map_err(io::Error::from)
            .map_err(|source| Error::Io { action: "write", path: file.clone(), source })?;
        durable::write(file, format!("{text}\n").as_bytes())?;
        self.read_back(statistics, kind)
    }

    fn read_back(&self, statistics: &Statistics, kind: Kind) -> Result<(), Error> {
        let options = dataset::Options {
            name: Some(self.name.clone()),
            min_interactions: 2,
            split: kind.in_run_file(),
            ..dataset::Options::default()
        };
        let dataset = Dataset::load(&self.stage, &options)?;
        for (what, written, read) in [
            ("items", statistics.items, dataset.catalogue.len()),
            ("training users", statistics.split.train_users, dataset.train.len()),
            ("held-out users", statistics.split.test_users, dataset.test.len()),
        ] {
            if written != read {
                return Err(Error::ReadBack { what, written, read });
            }
        }
        Ok(())
    }
}

impl Content {
    fn write(&self, folder: &Path, name: &str) -> Result<(), Error> {
        let users = in_order(&self.users.numbers);
        for (file, length) in [
            ("train.tsv", (|parts| parts.train) as fn(&super::split::Parts) -> usize),
            ("test.tsv", |parts| parts.test),
        ] {
            durable::write_with(&folder.join(file), |file| {
                let mut writer = BufWriter::with_capacity(1 << 18, file);
                for &user in &users {
                    let length = length(&self.plan.users[user]);
                    if length > 0 {
                        let sequence = &self.sequences.of(user)[..length];
                        let items = sequence.iter().map(|one| ItemId(self.items.numbers[one.item as usize]));
                        write::row(&mut writer, UserId(self.users.numbers[user]), items)?;
                    }
                }
                writer.flush()
            })?;
        }

        let items = in_order(&self.items.numbers);
        let kept = || items.iter().copied().filter(|&item| self.sequences.items[item]);
        let titles = folder.join(format!("{name}_titles.csv"));
        let rows = write::titles(
            kept().map(|item| (ItemId(self.items.numbers[item]), self.texts[item].title.as_str())),
        );
        durable::write(&titles, &rows.map_err(|source| Error::Csv { file: titles.clone(), source })?)?;
        let captions = write::captions(kept().filter_map(|item| {
            let text = &self.texts[item];
            Some((ItemId(self.items.numbers[item]), text.title.as_str(), text.caption.as_deref()?))
        }));
        if let Some(text) = captions {
            durable::write(&folder.join(format!("{name}_captions.json")), text.as_bytes())?;
        }

        for (what, numbering) in [("user", &self.users), ("item", &self.items)] {
            if let Some(names) = &numbering.names {
                let file = folder.join(format!("{name}_{what}_ids.csv"));
                let rows = ids(what, &numbering.numbers, names);
                durable::write(&file, &rows.map_err(|source| Error::Csv { file: file.clone(), source })?)?;
            }
        }
        Ok(())
    }
}

/// Which number stands for which name of the original files.
fn ids(what: &str, numbers: &[u64], names: &[Box<str>]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([what, "original"])?;
    for (number, name) in numbers.iter().zip(names) {
        writer.write_record([number.to_string().as_str(), name])?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(io::Error::from(error.error().kind())))
}

/// Indices by ascending number.
fn in_order(numbers: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_unstable_by_key(|&index| numbers[index]);
    order
}
