//! Writes the data folder atomically.
//!
//! Files are written into a hidden folder beside the target, read back with the reader of training, and then moved into
//! place by one rename.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use podium_files::durable;
use podium_recsys::dataset::{self, Dataset, Validation, write};
use podium_recsys::{ItemId, UserId};

use super::arrange::Sequences;
use super::collector::Text;
use super::ids::{Names, Numbering};
use super::rows::Error;
use super::split::{Parts, Plan, Wish};
use super::statistics::Statistics;

/// Location of the output.
#[derive(Debug)]
pub(crate) struct Target {
    folder: PathBuf,
    name: String,
}

/// Content of the data folder.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) sequences: Sequences,
    pub(crate) plan: Plan,
    pub(crate) users: Numbering,
    pub(crate) items: Numbering,
    pub(crate) texts: Vec<Text>,
}

impl Target {
    /// Prepares the folder `folder`, which must be absent or empty, for a data set called `name`, by default like the
    /// folder.
    ///
    /// Fails immediately if one rename cannot replace the folder.
    pub(crate) fn new(folder: &Path, name: Option<&str>) -> Result<Self, Error> {
        let failed = |source| Error::Io { action: "open", path: folder.to_owned(), source };
        let name = name.map(named).transpose()?;
        let location = match fs::read_dir(folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Error::NotEmpty(folder.to_owned()));
                }
                let location = fs::canonicalize(folder).map_err(failed)?;
                if is_mount_point(&location).map_err(failed)? {
                    return Err(Error::MountPoint(location));
                }
                location
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if folder.is_symlink() {
                    return Err(Error::DanglingLink(folder.to_owned()));
                }
                std::path::absolute(folder).map_err(failed)?
            }
            Err(source) => return Err(failed(source)),
        };
        let own = location.file_name().ok_or_else(|| Error::Nameless(folder.to_owned()))?;
        let own = own.to_string_lossy().into_owned();
        Ok(Self { folder: location, name: name.unwrap_or(own) })
    }

    /// Returns the data set's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Writes and checks the files and moves them into place.
    pub(crate) fn write(&self, content: Content, statistics: &Statistics, wish: &Wish) -> Result<(), Error> {
        durable::new_folder(&self.folder, |stage| self.stage(stage, content, statistics, wish))
    }

    fn stage(
        &self,
        stage: &Path,
        content: Content,
        statistics: &Statistics,
        wish: &Wish,
    ) -> Result<(), Error> {
        content.write(stage, &self.name)?;
        // Frees the memory before the files are read back.
        drop(content);
        let file = &stage.join("stats.json");
        let text = serde_json::to_string_pretty(statistics)
            .map_err(io::Error::from)
            .map_err(|source| Error::Io { action: "write", path: file.clone(), source })?;
        durable::write(file, format!("{text}\n").as_bytes())?;
        self.read_back(stage, statistics, wish)
    }

    fn read_back(&self, stage: &Path, statistics: &Statistics, wish: &Wish) -> Result<(), Error> {
        let validates = wish.validation_share.is_some();
        let options = dataset::Options {
            name: Some(self.name.clone()),
            min_interactions: 2,
            split: wish.kind.in_run_file(),
            validation: if validates { Validation::File } else { Validation::None },
            ..dataset::Options::default()
        };
        let dataset = Dataset::load(stage, &options)?;
        for (what, written, read) in [
            ("items", statistics.items, dataset.catalogue.len()),
            ("training users", statistics.split.train_users, dataset.train.len()),
            ("validation users", statistics.split.validation_users, dataset.validation.len()),
            ("test users", statistics.split.test_users, dataset.test.len()),
        ] {
            if written != read {
                return Err(Error::ReadBack { what, written, read });
            }
        }
        Ok(())
    }
}

/// Validates a name as a prefix of file names.
fn named(name: &str) -> Result<String, Error> {
    let bad = name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']);
    if bad { Err(Error::Name(name.to_owned())) } else { Ok(name.to_owned()) }
}

/// Returns whether a folder is on another file system than its parent.
fn is_mount_point(folder: &Path) -> io::Result<bool> {
    let parent = folder.parent().unwrap_or(folder);
    Ok(fs::metadata(folder)?.dev() != fs::metadata(parent)?.dev())
}

impl Content {
    fn write(&self, folder: &Path, name: &str) -> Result<(), Error> {
        let users = in_order(&self.users.numbers);
        for (file, length) in [
            ("train.tsv", (|parts| parts.train) as fn(&Parts) -> usize),
            ("validation.tsv", |parts| parts.validation),
            ("test.tsv", |parts| parts.test),
        ] {
            // The validation part may be absent; the plan has users in the others.
            if self.plan.users.iter().all(|parts| length(parts) == 0) {
                continue;
            }
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
                let rows = ids(what, numbering, names);
                durable::write(&file, &rows.map_err(|source| Error::Csv { file: file.clone(), source })?)?;
            }
        }
        Ok(())
    }
}

/// Returns the mapping of numbers to the names in the original files.
fn ids(what: &str, numbering: &Numbering, names: &Names) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([what, "original"])?;
    for (index, (number, &key)) in numbering.numbers.iter().zip(&numbering.keys).enumerate() {
        writer.write_record([number.to_string().as_str(), &names.get(index, key)])?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(io::Error::from(error.error().kind())))
}

/// Returns indices by ascending number.
fn in_order(numbers: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_unstable_by_key(|&index| numbers[index]);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        for name in ["", ".", "..", ".hidden", "../evil", "a/b", "/a", "a\0"] {
            assert!(matches!(named(name), Err(Error::Name(_))), "{name:?}");
        }
        assert_eq!(named("movies 1.0").unwrap(), "movies 1.0");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn mount_points_are_detected() {
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(Path::new("/proc/self")).unwrap());
        assert!(!is_mount_point(Path::new("/")).unwrap());
    }
}
