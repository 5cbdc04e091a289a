//! Checksums of the input files of results. Files are identified by content, not by location.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_files::durable::{self, hex};

/// Extensions of the files of a model or an adapter.
const POLICY_FILES: [&str; 3] = ["json", "jinja", "safetensors"];
/// Suffixes of the data set's files for prompts, candidates and baselines, after its name.
const DATA_FILES: [&str; 3] = ["_titles.csv", "_captions.json", "_negatives.tsv"];
/// Suffixes of additional files for demonstrations.
const REASONING_FILES: [&str; 2] = ["_reasoning.json", "_deepseek_cot.json"];

/// Checksums by file name.
pub type Checksums = BTreeMap<String, String>;

/// The reasons why a checksum cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder cannot be listed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] durable::Error),
}

/// Returns the checksums of the model or adapter in a folder.
pub fn policy(folder: &Path) -> Result<Checksums, Error> {
    files(folder, |name| {
        Path::new(name).extension().is_some_and(|ending| POLICY_FILES.iter().any(|known| ending == *known))
    })
}

/// Returns the checksums of the files for prompts, candidates and baselines of the data set `name`.
pub fn data(folder: &Path, name: &str) -> Result<Checksums, Error> {
    files(folder, |file| is_data(file, name, &DATA_FILES))
}

/// Returns the checksums of the files for demonstrations of the data set `name`.
pub fn demonstrations(folder: &Path, name: &str) -> Result<Checksums, Error> {
    files(folder, |file| is_data(file, name, &DATA_FILES) || is_data(file, name, &REASONING_FILES))
}

/// Returns the checksum of a file: SHA-256 in hexadecimal.
pub fn file(path: &Path) -> Result<String, Error> {
    Ok(hex(&durable::sha256(path)?))
}

fn is_data(file: &str, name: &str, endings: &[&str]) -> bool {
    matches!(file, "train.tsv" | "validation.tsv" | "test.tsv")
        || file.strip_prefix(name).is_some_and(|ending| endings.contains(&ending))
}

fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Checksums, Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let mut found = Checksums::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with('.') && wanted(&name) && path.is_file() {
            found.insert(name, file(&path)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_cover_the_files_that_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("model.safetensors", "weights");
        write("train.tsv", "1\t2 3\n");
        let of_policy = policy(folder).unwrap();
        let (of_data, of_demonstrations) =
            (data(folder, "shop").unwrap(), demonstrations(folder, "shop").unwrap());
        write("optimizer.pt", "state");
        assert_eq!(policy(folder).unwrap(), of_policy);
        write("shop_reasoning.json", "[]");
        assert_eq!(data(folder, "shop").unwrap(), of_data);
        assert_ne!(demonstrations(folder, "shop").unwrap(), of_demonstrations);
        write("model.safetensors", "other");
        assert_ne!(policy(folder).unwrap()["model.safetensors"], of_policy["model.safetensors"]);
        write("shop_titles.csv", "id,title\n");
        assert_ne!(data(folder, "shop").unwrap(), of_data);
        assert!(policy(Path::new("/nowhere/at/all")).unwrap_err().to_string().contains("/nowhere/at/all"));
    }
}
