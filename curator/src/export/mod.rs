//! `podium-curator export`: writes a data set in formats of other programs.
//!
//! All formats hold the same tables: each interaction once, with its position in the user's sequence and the part that it
//! belongs to, and the items.

mod interactions;
mod parquet;
mod recbole;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use podium_files::durable;
use podium_recsys::Dataset;
use podium_recsys::dataset::{self, Split, Validation};

use interactions::{Part, sequences};

/// The data set and the format to write.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Format of the files.
    #[arg(value_enum)]
    format: Format,
    /// Folder of the data set.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Prefix of the files in the folder [default: the folder's name].
    #[arg(long)]
    name: Option<String>,
    /// Output folder, which must be absent or empty. It is created atomically.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// RecBole's atomic files: NAME.inter, NAME.item and NAME.user.
    Recbole,
    /// interactions.parquet and items.parquet.
    Parquet,
}

/// An error of an export. Existing files are unchanged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The data set cannot be read.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// The output folder has files.
    #[error("{} is not empty: expected a new or empty folder", .0.display())]
    NotEmpty(PathBuf),
    /// A file cannot be written.
    #[error(transparent)]
    Durable(#[from] durable::Error),
}

/// Numbers of exported objects.
#[derive(Debug)]
pub(crate) struct Report {
    files: Vec<String>,
    users: usize,
    items: usize,
    /// Interactions by part: training, validation and test.
    interactions: [usize; 3],
}

/// Writes the files and reports what they hold.
pub(crate) fn export(arguments: &Arguments) -> Result<Report, Error> {
    let out = &arguments.out;
    if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::NotEmpty(out.clone()));
    }
    let has_validation = arguments.data.join("validation.tsv").exists();
    let options = dataset::Options {
        name: arguments.name.clone(),
        min_interactions: 2,
        // Also true of a data set that is split by users.
        split: Split::Times,
        validation: if has_validation { Validation::File } else { Validation::None },
        ..dataset::Options::default()
    };
    let data = Dataset::load(&arguments.data, &options)?;
    let sequences = sequences(&data);
    let files = |folder: &Path| match arguments.format {
        Format::Recbole => recbole::write(folder, &data, &sequences),
        Format::Parquet => parquet::write(folder, &data, &sequences),
    };
    let mut written = Vec::new();
    durable::new_folder(out, |folder| files(folder).map(|files| written = files))?;
    let count = |part: Part| {
        sequences.iter().flat_map(interactions::Sequence::interactions).filter(|one| one.part == part).count()
    };
    Ok(Report {
        files: written,
        users: sequences.len(),
        items: data.catalogue.len(),
        interactions: [Part::Train, Part::Validation, Part::Test].map(count),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, validation, test] = self.interactions;
        for (what, value) in [
            ("files", self.files.join(", ")),
            ("users", self.users.to_string()),
            ("items", self.items.to_string()),
            ("interactions, training part", train.to_string()),
            ("interactions, validation part", validation.to_string()),
            ("interactions, test part", test.to_string()),
        ] {
            writeln!(f, "{what:<31} {value}")?;
        }
        Ok(())
    }
}
