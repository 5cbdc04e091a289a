//! The policy versions of a run: folders under `<out>/policy/`, with their manifests in the store.
//!
//! A version exists once its folder is whole and its manifest is stored. Manifests outlive folders that are no longer
//! needed, so that a learner which repeats old steps is held to what it published before.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use podium_grpo::PolicyVersion;
use podium_runtime::durable;
use podium_transfer::manifest::{self, Manifest};
use podium_transfer::receive::{self, Receiver};

use crate::machine::Plan;
use crate::store::{self, Store};

/// Extension of the files that hold weights.
const WEIGHTS: &str = "safetensors";
/// What a PEFT folder consists of.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// What version 0 is made of.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Folder of the model; needed the first time.
    pub model: Option<&'a Path>,
    /// Folder of the adapter that the run goes on with.
    pub adapter: Option<&'a Path>,
}

/// Why a version cannot be had or taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody said what to start from.
    #[error("model.path is not set: name the folder of the policy to start from, in Hugging Face layout")]
    NoStart,
    /// The start cannot be used.
    #[error("cannot start from the policy in {}: {source}", folder.display())]
    Start {
        /// model.path
        folder: PathBuf,
        /// Why.
        source: manifest::Error,
    },
    /// The start has no weights.
    #[error("cannot start from the policy in {}: it has no .safetensors file", folder.display())]
    NoWeights {
        /// model.path
        folder: PathBuf,
    },
    /// The start is not what the run began with.
    #[error("the policy in {} differs in architecture or tokenizer from the one that this run began with: set model.path back, or choose another folder with --out", folder.display())]
    OtherStart {
        /// model.path
        folder: PathBuf,
    },
    /// A file cannot be copied.
    #[error("cannot copy {}: {source}", path.display())]
    Copy {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A version that never was, or is no longer kept.
    #[error("there is no {0} (any more)")]
    NotThere(PolicyVersion),
    /// A file that the version does not have.
    #[error("{version} has no file {name:?}")]
    NoFile {
        /// The version.
        version: PolicyVersion,
        /// The file.
        name: String,
    },
    /// A version of another run.
    #[error(
        "{version} belongs to the run with hash {found}, this coordinator runs {expected}: start the learner with this run's file"
    )]
    OtherRun {
        /// The version.
        version: PolicyVersion,
        /// Its run.
        found: String,
        /// This run.
        expected: String,
    },
    /// A version of another model.
    #[error(
        "{version} has model fingerprint {found}, this run's policy has {expected}: architecture and tokenizer must stay as they are in version 0"
    )]
    OtherModel {
        /// The version.
        version: PolicyVersion,
        /// Its fingerprint.
        found: String,
        /// That of version 0.
        expected: String,
    },
    /// The same step led to another policy.
    #[error(
        "{0} was published before with other content: training is not deterministic here; same build, same device and same threads give the same bits"
    )]
    NotDeterministic(PolicyVersion),
    /// Files could not be taken in.
    #[error(transparent)]
    Receive(#[from] receive::Error),
    /// Files could not be written or read.
    #[error(transparent)]
    File(#[from] durable::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A manifest in the store does not hold together.
    #[error(transparent)]
    Manifest(#[from] podium_proto::convert::Error),
}

/// The versions.
#[derive(Debug)]
pub struct Policies {
    root: PathBuf,
    run_hash: String,
    fingerprint: String,
    known: RwLock<BTreeMap<PolicyVersion, Manifest>>,
}

impl Policies {
    /// The versions under `root`; imports `start` as version 0 where there is none yet.
    pub fn open(root: &Path, run_hash: &str, start: Start<'_>, store: &Store) -> Result<Self, Error> {
        durable::create_folder(root)?;
        let mut known = BTreeMap::new();
        for message in store.policies()? {
            let manifest = Manifest::try_from(message)?;
            known.insert(manifest.version, manifest);
        }
        let first = root.join("0");
        let manifest = match known.get(&PolicyVersion::START) {
            Some(manifest) if first.is_dir() => manifest.clone(),
            _ => {
                let manifest = import(start, root, run_hash)?;
                store.put_policy(&(&manifest).into())?;
                manifest
            }
        };
        if let Some(start) = start.model.filter(|start| start.is_dir()) {
            let failed = |source| Error::Start { folder: start.to_owned(), source };
            if manifest::fingerprint(start).map_err(failed)? != manifest.model_fingerprint {
                return Err(Error::OtherStart { folder: start.to_owned() });
            }
        }
        let fingerprint = manifest.model_fingerprint.clone();
        known.insert(PolicyVersion::START, manifest);
        Ok(Self {
            root: root.to_owned(),
            run_hash: run_hash.to_owned(),
            fingerprint,
            known: RwLock::new(known),
        })
    }

    /// What architecture and tokenizer of every version are.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The manifest of a version whose folder is there; of the newest where none is named.
    pub fn manifest(&self, version: Option<PolicyVersion>) -> Result<Manifest, Error> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let newest = known.last_key_value().map_or(PolicyVersion::START, |(version, _)| *version);
        let version = version.unwrap_or(newest);
        let manifest = known.get(&version).filter(|_| self.folder(version).is_dir());
        manifest.cloned().ok_or(Error::NotThere(version))
    }

    /// Where a file of a version lies.
    pub fn file(&self, version: PolicyVersion, name: &str) -> Result<PathBuf, Error> {
        let manifest = self.manifest(Some(version))?;
        let file = manifest.file(name).ok_or_else(|| Error::NoFile { version, name: name.to_owned() })?;
        Ok(self.folder(version).join(&file.name))
    }

    /// Whether a version that somebody publishes is known with the same content.
    pub fn is_repeated(&self, manifest: &Manifest) -> Result<bool, Error> {
        let version = manifest.version;
        if manifest.run_hash != self.run_hash {
            let (found, expected) = (manifest.run_hash.clone(), self.run_hash.clone());
            return Err(Error::OtherRun { version, found, expected });
        }
        if manifest.model_fingerprint != self.fingerprint {
            let (found, expected) = (manifest.model_fingerprint.clone(), self.fingerprint.clone());
            return Err(Error::OtherModel { version, found, expected });
        }
        match self.known.read().unwrap_or_else(PoisonError::into_inner).get(&version) {
            Some(known) if known.files == manifest.files => Ok(true),
            Some(_) => Err(Error::NotDeterministic(version)),
            None => Ok(false),
        }
    }

    /// Begins to take a version in, from nothing: what an earlier attempt left behind may end within a chunk.
    pub fn receiver(&self, manifest: &Manifest) -> Result<Receiver, Error> {
        let prefix = format!(".{}-", manifest.version.0);
        self.remove_folders(|name| name.starts_with(&prefix))?;
        Ok(Receiver::new(manifest.clone(), &self.folder(manifest.version))?)
    }

    /// Notes a version whose folder is whole and whose manifest is stored.
    pub fn add(&self, manifest: Manifest) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(manifest.version, manifest);
    }

    /// Removes the folders that the plan does not keep.
    pub fn prune(&self, plan: &Plan, latest: PolicyVersion) -> Result<(), Error> {
        self.remove_folders(|name| {
            name.parse().is_ok_and(|version| !plan.keeps(PolicyVersion(version), latest))
        })
    }

    fn folder(&self, version: PolicyVersion) -> PathBuf {
        self.root.join(version.0.to_string())
    }

    fn remove_folders(&self, goes: impl Fn(&str) -> bool) -> Result<(), Error> {
        let failed = |source| durable::Error::Read { path: self.root.clone(), source };
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if goes(&entry.file_name().to_string_lossy()) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Whether a file of a policy folder belongs to the policy, rather than to whoever made it.
fn belongs(name: &str) -> bool {
    if ADAPTER.contains(&name) {
        return false;
    }
    let tokenizer = name.starts_with("tokenizer") && has_extension(name, "json");
    let named =
        ["config.json", "generation_config.json", "chat_template.jinja", "model.safetensors.index.json"];
    named.contains(&name) || tokenizer || (has_extension(name, WEIGHTS) && !name.starts_with('.'))
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

fn import(start: Start<'_>, root: &Path, run_hash: &str) -> Result<Manifest, Error> {
    let Start { model: Some(start), adapter } = start else { return Err(Error::NoStart) };
    let unreadable = |source| Error::Start {
        folder: start.to_owned(),
        source: manifest::Error::Folder { folder: start.to_owned(), source },
    };
    let partial = root.join(".0-import.partial");
    if partial.is_dir() {
        fs::remove_dir_all(&partial)
            .map_err(|source| durable::Error::Write { path: partial.clone(), source })?;
    }
    durable::create_folder(&partial)?;
    let mut has_weights = false;
    for entry in fs::read_dir(start).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if belongs(&name) && entry.path().is_file() {
            has_weights |= has_extension(&name, WEIGHTS);
            copy(&entry.path(), &partial.join(&name))?;
        }
    }
    for (folder, name) in adapter.into_iter().flat_map(|folder| ADAPTER.map(|name| (folder, name))) {
        copy(&folder.join(name), &partial.join(name))?;
    }
    if !has_weights {
        return Err(Error::NoWeights { folder: start.to_owned() });
    }
    let described = manifest::fingerprint(&partial)
        .and_then(|print| manifest::describe(&partial, PolicyVersion::START, run_hash, &print));
    let manifest = described.map_err(|source| Error::Start { folder: start.to_owned(), source })?;
    durable::sync_folder(&partial)?;
    let target = root.join("0");
    let failed = |source| durable::Error::Write { path: target.clone(), source };
    if target.is_dir() {
        fs::remove_dir_all(&target).map_err(failed)?;
    }
    fs::rename(&partial, &target).map_err(failed)?;
    durable::sync_folder(root)?;
    Ok(manifest)
}

/// Copies a file and waits until it is on disk.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let copied = fs::copy(from, to).and_then(|_| fs::File::open(to)?.sync_all());
    copied.map_err(|source| Error::Copy { path: from.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.json", "tokenizer.json", "model.safetensors", "notes.txt"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        folder
    }

    fn from(model: &Path) -> Start<'_> {
        Start { model: Some(model), adapter: None }
    }

    fn plan() -> Plan {
        let file = podium_config::RunFile::parse("[evaluation]\nevery_steps = 4", "run.toml", &[]).unwrap();
        Plan::of(&file, 10)
    }

    #[test]
    fn the_start_is_imported_once_and_kept_to() {
        let (start, out) = (start(), tempfile::tempdir().unwrap());
        let store = Store::open(out.path(), "cafe").unwrap();
        let root = out.path().join("policy");
        assert!(matches!(
            Policies::open(&root, "cafe", Start { model: None, adapter: None }, &store),
            Err(Error::NoStart)
        ));
        let policies = Policies::open(&root, "cafe", from(start.path()), &store).unwrap();
        let manifest = policies.manifest(None).unwrap();
        assert_eq!(manifest.files.len(), 3, "notes are nobody's policy");
        manifest.verify(&root.join("0")).unwrap();
        Policies::open(&root, "cafe", Start { model: None, adapter: None }, &store).unwrap();
        fs::write(start.path().join("config.json"), "other").unwrap();
        let other = Policies::open(&root, "cafe", from(start.path()), &store);
        assert!(matches!(other, Err(Error::OtherStart { .. })));
    }

    #[test]
    fn an_adapter_to_go_on_with_is_part_of_the_start() {
        let (start, adapter, out) = (start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(out.path(), "cafe").unwrap();
        let root = out.path().join("policy");
        let both = Start { model: Some(start.path()), adapter: Some(adapter.path()) };
        let missing = Policies::open(&root, "cafe", both, &store).unwrap_err().to_string();
        assert!(missing.contains("adapter_config.json"), "{missing}");
        for name in ADAPTER {
            fs::write(adapter.path().join(name), name).unwrap();
        }
        let policies = Policies::open(&root, "cafe", both, &store).unwrap();
        assert_eq!(policies.manifest(None).unwrap().files.len(), 5);
    }

    #[test]
    fn a_version_is_held_to_what_it_was() {
        let (start, out) = (start(), tempfile::tempdir().unwrap());
        let store = Store::open(out.path(), "cafe").unwrap();
        let policies =
            Policies::open(&out.path().join("policy"), "cafe", from(start.path()), &store).unwrap();
        let mut manifest = Manifest { version: PolicyVersion(1), ..policies.manifest(None).unwrap() };
        assert!(!policies.is_repeated(&manifest).unwrap());
        policies.add(manifest.clone());
        assert!(policies.is_repeated(&manifest).unwrap());
        assert!(matches!(policies.manifest(None), Err(Error::NotThere(PolicyVersion(1)))), "no folder");
        manifest.files[0].sha256 = [0; 32];
        assert!(matches!(policies.is_repeated(&manifest), Err(Error::NotDeterministic(_))));
        manifest.run_hash = "beef".into();
        assert!(policies.is_repeated(&manifest).unwrap_err().to_string().contains("beef"));
    }

    #[test]
    fn old_versions_go_unless_they_are_evaluated() {
        let (start, out) = (start(), tempfile::tempdir().unwrap());
        let store = Store::open(out.path(), "cafe").unwrap();
        let root = out.path().join("policy");
        let policies = Policies::open(&root, "cafe", from(start.path()), &store).unwrap();
        (1..=7).for_each(|version| fs::create_dir(root.join(version.to_string())).unwrap());
        policies.prune(&plan(), PolicyVersion(7)).unwrap();
        let mut left: Vec<String> = fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["0", "4", "6", "7"]);
    }
}
