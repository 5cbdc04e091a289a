//! Checkpoints: the complete state that the next step depends on, written atomically.
//!
//! A checkpoint is a folder whose name contains the step that continues from it. It is written
//! under a hidden name, with the manifest last, and renamed once all files are durable. The last
//! two checkpoints are retained. A folder that does not match its checksums is skipped; a
//! checkpoint of another run is an error.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_files::durable::{self, hex};
use podium_grpo::Step;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::update::Metrics;

const STATE_FILE: &str = "state.safetensors";
const MANIFEST_FILE: &str = "manifest.json";
/// Extension of a checkpoint that is being written.
const UNFINISHED: &str = "tmp";
/// Increased when learners of different versions could misread each other's checkpoints.
const FORMAT: u32 = 1;
/// Number of retained checkpoints.
const RETAINED: usize = 2;

/// The reasons why a checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoints belong to another run.
    #[error(
        "{} is a checkpoint of run {found}, this is run {expected}: choose another --state, or remove it", path.display()
    )]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// Run hash of the checkpoint.
        found: String,
        /// Run hash of this run.
        expected: String,
    },
    /// A file or folder cannot be written or read.
    #[error(transparent)]
    File(#[from] durable::Error),
    /// The tensors cannot be written or read.
    #[error("cannot use {}: {source}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: tch::TchError,
    },
    /// A checkpoint cannot be read back after writing.
    #[error("the checkpoint of step {step} cannot be read back after writing: check the disk for faults")]
    Unreadable {
        /// The step that it continues with.
        step: u64,
    },
    /// The tensors do not match this policy.
    #[error("{} holds {found}: expected {expected}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// A tensor with its shape.
        found: String,
        /// The expected tensor with its shape.
        expected: String,
    },
}

/// Content of a checkpoint's manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    run_hash: String,
    /// The step that continues from here.
    next_step: u64,
    /// Seed of the run. The learner draws no random numbers; workers key theirs by this seed and the step.
    seed: u64,
    /// Metrics of the previous step, in case its commit was lost.
    metrics: Metrics,
    /// SHA-256 of the state's file.
    state_sha256: String,
    /// Number of policy versions that the run had dropped at the time of writing.
    #[serde(default)]
    dropped: usize,
}

/// The checkpoints of a rank.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    run_hash: String,
    seed: u64,
    /// Policy versions that the run has dropped, in order.
    dropped: Vec<u64>,
}

/// A complete checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The step that continues from here.
    pub next_step: Step,
    /// Metrics of the previous step.
    pub metrics: Metrics,
    state: PathBuf,
}

impl Checkpoints {
    /// Opens the checkpoints in `folder`, which is created if necessary. Removes unfinished checkpoints.
    pub fn open(folder: &Path, run_hash: &str, seed: u64) -> Result<Self, Error> {
        durable::create_folder(folder)?;
        let failed = |source| durable::Error::Read { path: folder.to_owned(), source };
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                durable::remove_folder(&path)?;
            }
        }
        Ok(Self { folder: folder.to_owned(), run_hash: run_hash.to_owned(), seed, dropped: Vec::new() })
    }

    /// Returns the newest complete checkpoint.
    pub fn latest(&self) -> Result<Option<Checkpoint>, Error> {
        for path in self.list()?.into_iter().rev() {
            if let Some(checkpoint) = self.read(&path)? {
                return Ok(Some(checkpoint));
            }
            tracing::warn!("{} is damaged: skipping it", path.display());
        }
        Ok(None)
    }

    /// Returns the complete checkpoint that continues with a step, if there is one.
    pub fn at(&self, next_step: Step) -> Result<Option<Checkpoint>, Error> {
        let path = self.path(next_step);
        if path.is_dir() { self.read(&path) } else { Ok(None) }
    }

    /// Removes the checkpoints that depend on a policy version that was dropped after they were
    /// written. `dropped`: all dropped versions of the run, in order.
    pub fn forget(&mut self, dropped: Vec<u64>) -> Result<(), Error> {
        for path in self.list()? {
            let Some(manifest) = manifest(&path).filter(|manifest| manifest.run_hash == self.run_hash) else {
                continue;
            };
            let since = dropped.get(manifest.dropped..).unwrap_or_default();
            if let Some(version) = since.iter().find(|version| **version < manifest.next_step) {
                tracing::warn!(
                    "{} is removed because it builds upon policy version {version}, which was dropped from the run",
                    path.display()
                );
                durable::remove_folder(&path)?;
            }
        }
        self.dropped = dropped;
        Ok(())
    }

    /// Writes the state before `next_step`, and removes superseded checkpoints.
    pub fn write(&self, next_step: Step, metrics: &Metrics, state: &[(String, Tensor)]) -> Result<(), Error> {
        self.keep(next_step, metrics, state)?;
        self.prune()
    }

    /// Writes the state before `next_step`, without removing checkpoints.
    pub fn keep(&self, next_step: Step, metrics: &Metrics, state: &[(String, Tensor)]) -> Result<(), Error> {
        let target = self.path(next_step);
        if target.is_dir() && self.read(&target)?.is_some() {
            // The same step of the same run has the same state.
            return Ok(());
        }
        let hidden = self.folder.join(format!(".{:08}.{UNFINISHED}", next_step.0));
        durable::remove_folder(&hidden)?;
        durable::create_folder(&hidden)?;
        let path = hidden.join(STATE_FILE);
        let state: Vec<(&str, Tensor)> =
            state.iter().map(|(name, tensor)| (name.as_str(), tensor.contiguous())).collect();
        Tensor::write_safetensors(&state, &path).map_err(|source| not_written(&path, source))?;
        let manifest = Manifest {
            format: FORMAT,
            run_hash: self.run_hash.clone(),
            next_step: next_step.0,
            seed: self.seed,
            metrics: metrics.clone(),
            state_sha256: hex(&durable::sha256(&path)?),
            dropped: self.dropped.len(),
        };
        durable::write(
            &hidden.join(MANIFEST_FILE),
            format!("{:#}\n", serde_json::json!(manifest)).as_bytes(),
        )?;
        Ok(durable::publish_folder(&hidden, &target)?)
    }

    /// Removes all checkpoints except the newest two.
    pub fn prune(&self) -> Result<(), Error> {
        let old = self.list()?;
        Ok(old[..old.len().saturating_sub(RETAINED)]
            .iter()
            .try_for_each(|path| durable::remove_folder(path))?)
    }

    fn path(&self, next_step: Step) -> PathBuf {
        self.folder.join(format!("{:08}", next_step.0))
    }

    /// Folders with a checkpoint's name, by step.
    fn list(&self) -> Result<Vec<PathBuf>, Error> {
        let failed = |source| durable::Error::Read { path: self.folder.clone(), source };
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(step) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) {
                steps.push((step, entry.path()));
            }
        }
        steps.sort();
        Ok(steps.into_iter().map(|(_, path)| path).collect())
    }

    /// Reads a checkpoint; returns `None` if it is damaged.
    fn read(&self, path: &Path) -> Result<Option<Checkpoint>, Error> {
        let Some(Manifest { run_hash, next_step, metrics, state_sha256, .. }) = manifest(path) else {
            return Ok(None);
        };
        if run_hash != self.run_hash {
            let expected = self.run_hash.clone();
            return Err(Error::OtherRun { path: path.to_owned(), found: run_hash, expected });
        }
        let state = path.join(STATE_FILE);
        let intact = durable::sha256(&state).is_ok_and(|sha256| hex(&sha256) == state_sha256);
        Ok(intact.then_some(Checkpoint { next_step: Step(next_step), metrics, state }))
    }
}

/// Reads a checkpoint's manifest, if possible.
fn manifest(path: &Path) -> Option<Manifest> {
    let bytes = fs::read(path.join(MANIFEST_FILE)).ok()?;
    serde_json::from_slice(&bytes).ok().filter(|manifest: &Manifest| manifest.format == FORMAT)
}

impl Checkpoint {
    /// Returns the saved tensors by name, which must have these names and shapes. They are on the CPU.
    pub fn load(&self, mut shapes: Vec<(String, Vec<i64>)>) -> Result<BTreeMap<String, Tensor>, Error> {
        let path = || self.state.clone();
        let mut saved = Tensor::read_safetensors(&self.state)
            .map_err(|source| Error::Tensors { path: path(), source })?;
        saved.sort_by(|(a, _), (b, _)| a.cmp(b));
        shapes.sort();
        let describe = |entry: Option<(&String, Vec<i64>)>| match entry {
            Some((name, shape)) => format!("{name} {shape:?}"),
            None => "nothing more".to_owned(),
        };
        for index in 0..saved.len().max(shapes.len()) {
            let found = describe(saved.get(index).map(|(name, tensor)| (name, tensor.size())));
            let expected = describe(shapes.get(index).map(|(name, shape)| (name, shape.clone())));
            if found != expected {
                return Err(Error::Mismatch { path: path(), found, expected });
            }
        }
        Ok(saved.into_iter().collect())
    }
}

/// Converts an error of writing tensors. libtorch reports a full disk only in the text of its
/// error.
fn not_written(path: &Path, source: tch::TchError) -> Error {
    let text = format!("{source:?}");
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    match full.into_iter().find(|kind| text.contains(&format!("{kind:?}"))) {
        Some(kind) => durable::Error::Write { path: path.to_owned(), source: kind.into() }.into(),
        None => Error::Tensors { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests;
