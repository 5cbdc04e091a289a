//! Baselines that `podium-curator baselines --train` trained: the folder with their scores, read without libtorch.
//!
//! `baselines.json` lists the models and the interactions that they were trained and scored on. Each model has a
//! safetensors file with the scores of all items of the catalogue, in ascending order of id, for each test user, in
//! the order of the data set: tensors `scores.<number>` of [`ROWS`] users each, float32.

use std::fs;
use std::path::{Path, PathBuf};

use podium_checkpoint::Checkpoint;
use podium_checkpoint::parameters::{Initial, Parameter};
use podium_files::durable::{self, hex};
use podium_recsys::dataset::HeldOut;
use podium_recsys::ranking::by_score;
use podium_recsys::{Dataset, ItemId, User};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Name of the list of models.
pub const MANIFEST: &str = "baselines.json";
/// Number of users in a tensor of scores; the last may have fewer.
pub const ROWS: usize = 256;

/// Returns the name of a tensor of scores; names are sorted like numbers.
pub fn tensor(number: usize) -> String {
    format!("scores.{number:08}")
}

/// The reasons why trained baselines cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: expected a folder that podium-curator baselines --train finished", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The list of models is malformed.
    #[error("{} is not a list of trained baselines: train them with podium-curator baselines --train", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The baselines were trained on other interactions.
    #[error(
        "the baselines in {} were trained on other interactions than those of data set {name}, which has {train} training \
         and {test} test users: expected the same data folder, and --name, --split, --validation and --min-interactions of \
         podium-curator baselines equal to data.name, data.split, data.validation and data.min_interactions; train them \
         again", folder.display()
    )]
    OtherData {
        /// The folder of the baselines.
        folder: PathBuf,
        /// Name of the data set.
        name: String,
        /// Number of its training users.
        train: usize,
        /// Number of its test users.
        test: usize,
    },
    /// The baselines have no scores for the evaluated users.
    #[error(
        "trained baselines have scores of test users alone: expected --part test, or an evaluation without trained baselines"
    )]
    Part,
    /// A file of scores differs from the one that was written.
    #[error(
        "{} has SHA-256 {found}, expected {expected} from {MANIFEST}: the file is damaged or replaced; remove the model's \
         folder and train again", path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its checksum.
        found: String,
        /// The checksum in the list of models.
        expected: String,
    },
    /// A checksum cannot be computed.
    #[error(transparent)]
    File(#[from] durable::Error),
    /// A file of scores cannot be read.
    #[error(transparent)]
    Scores(#[from] podium_checkpoint::Error),
}

/// The content of `baselines.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the program.
    pub version: String,
    /// Name of the data set.
    pub data: String,
    /// The result of [`interactions`] for the data set.
    pub interactions: String,
    /// Seed of the training.
    pub seed: u64,
    /// Number of libtorch's threads.
    pub threads: usize,
    /// The models.
    pub models: Vec<Entry>,
}

/// A trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name in tables.
    pub name: String,
    /// The chosen settings.
    pub settings: Value,
    /// The epoch of its weights; 0 for a model in closed form.
    pub epoch: Option<u64>,
    /// NDCG@10 on the validation part, with the whole catalogue as candidates.
    pub validation_ndcg: f64,
    /// File of scores, relative to the folder.
    pub scores: String,
    /// SHA-256 of that file.
    pub sha256: String,
}

/// Returns a digest of the ids of all items, and of the interactions of all users of each part in their order.
pub fn interactions(dataset: &Dataset) -> String {
    let mut digest = Sha256::new();
    let mut number = |number: u64| digest.update(number.to_le_bytes());
    number(dataset.catalogue.len() as u64);
    dataset.catalogue.items().iter().for_each(|item| number(item.id.0));
    for users in [&dataset.train, &dataset.validation, &dataset.test] {
        number(users.len() as u64);
        for User { id, items } in users {
            number(id.0);
            number(items.len() as u64);
            for item in items {
                number(item.0);
            }
        }
    }
    hex(&digest.finalize())
}

/// Checks that trained baselines have scores for the users of a part.
pub fn check(part: HeldOut) -> Result<(), Error> {
    if part == HeldOut::Test { Ok(()) } else { Err(Error::Part) }
}

/// Trained baselines for the test users of a data set.
#[derive(Debug)]
pub struct Trained {
    /// The list of models.
    pub manifest: Manifest,
    /// The folder.
    pub folder: PathBuf,
    /// By model.
    scores: Vec<Checkpoint>,
}

impl Trained {
    /// Opens the folder of baselines that were trained on the interactions of `dataset`, to rank for the users of `part`.
    pub fn open(folder: &Path, dataset: &Dataset, part: HeldOut) -> Result<Self, Error> {
        check(part)?;
        let path = folder.join(MANIFEST);
        let text = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|source| Error::Manifest { path, source })?;
        if manifest.interactions != interactions(dataset) {
            return Err(Error::OtherData {
                folder: folder.to_owned(),
                name: dataset.name.clone(),
                train: dataset.train.len(),
                test: dataset.test.len(),
            });
        }
        let scores = manifest.models.iter().map(|entry| open_scores(folder, entry, dataset));
        let scores = scores.collect::<Result<_, _>>()?;
        Ok(Self { manifest, folder: folder.to_owned(), scores })
    }

    /// Returns the names of the models.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.manifest.models.iter().map(|entry| entry.name.as_str())
    }

    /// Ranks the candidates of each list by the scores of a model, best first; ties keep the order of the list. A list
    /// belongs to the test user at a position in the data set.
    ///
    /// # Panics
    /// If the model or a user does not exist.
    pub fn rank(
        &self,
        model: usize,
        dataset: &Dataset,
        lists: &[(usize, &[ItemId])],
    ) -> Result<Vec<Vec<ItemId>>, Error> {
        let row_bytes = 4 * dataset.catalogue.len();
        let mut rankings = vec![Vec::new(); lists.len()];
        for number in 0..dataset.test.len().div_ceil(ROWS) {
            // Reading a tensor checks all its numbers.
            if !lists.iter().any(|(user, _)| user / ROWS == number) {
                continue;
            }
            let tensor = self.scores[model].tensor(&tensor(number))?;
            let of_tensor = lists.iter().zip(&mut rankings).filter(|((user, _), _)| user / ROWS == number);
            for ((user, candidates), ranking) in of_tensor {
                let row = &tensor.bytes()[user % ROWS * row_bytes..][..row_bytes];
                let scores: Vec<f64> =
                    candidates.iter().map(|&item| score(row, dataset.catalogue.position(item))).collect();
                *ranking = by_score(candidates, &scores);
            }
        }
        Ok(rankings)
    }
}

/// Returns the score at a position of the catalogue; candidates outside it are ranked last.
fn score(row: &[u8], position: Option<usize>) -> f64 {
    position.map_or(f64::NAN, |position| {
        let bytes = row[4 * position..][..4].try_into().expect("four bytes");
        f64::from(f32::from_le_bytes(bytes))
    })
}

fn open_scores(folder: &Path, entry: &Entry, dataset: &Dataset) -> Result<Checkpoint, Error> {
    let path = folder.join(&entry.scores);
    let found = hex(&durable::sha256(&path)?);
    if found != entry.sha256 {
        return Err(Error::Changed { path, found, expected: entry.sha256.clone() });
    }
    let list: Vec<Parameter> = dataset
        .test
        .chunks(ROWS)
        .enumerate()
        .map(|(number, users)| Parameter {
            name: tensor(number),
            shape: vec![users.len() as i64, dataset.catalogue.len() as i64],
            initial: Initial::Zeros,
        })
        .collect();
    Ok(Checkpoint::open_files(folder, vec![path], &list, |_| false)?)
}
