//! Policy versions on this host's disk: the ones sampled last, fetched when they are first wanted.
//!
//! Says where a version lies; reading weights is the sampler's work. A version is cached by number and content, since it
//! can be superseded by another one of the same number. Versions that consist of an adapter share the model
//! of version 0, which stays as long as they come.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_model::is_adapter;
use podium_proto::v1;
use podium_transfer::{Content, Coordinator, Manifest, connection, fetch};

use crate::metrics;

/// Versions kept: the current one, and the one before, since leases of two versions can alternate.
const KEPT: usize = 2;

/// Why a version is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The coordinator does not say which versions it has.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The manifest of the latest version does not hold together.
    #[error("the coordinator sent a policy manifest that does not hold together: {0}")]
    Manifest(#[from] podium_proto::convert::Error),
    /// It could not be brought.
    #[error("cannot fetch {version} into {}", folder.display())]
    Fetch {
        /// Which.
        version: PolicyVersion,
        /// Where to.
        folder: PathBuf,
        /// Why.
        source: fetch::Error,
    },
    /// It belongs to another run.
    #[error(
        "{version} of the coordinator at {address} belongs to a run with hash {found}: this worker's run file has hash {expected}; start it with the coordinator's run file"
    )]
    OtherRun {
        /// Which version.
        version: PolicyVersion,
        /// Whose.
        address: String,
        /// The manifest's run hash.
        found: String,
        /// This worker's.
        expected: String,
    },
    /// Another version of the same number took its place.
    #[error("{wanted} was superseded: the coordinator serves content {found} under this version now")]
    Superseded {
        /// As the lease names it.
        wanted: Source,
        /// What there is.
        found: Content,
    },
    /// The folder cannot be written or tidied.
    #[error(transparent)]
    Folder(#[from] durable::Error),
}

impl Error {
    /// Whether the coordinator does not serve the version, or no longer.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Fetch { source: fetch::Error::Connection(error), .. } => error.is_not_found(),
            Self::Superseded { .. } => true,
            _ => false,
        }
    }
}

/// A policy version by number and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// Its number.
    pub(crate) version: PolicyVersion,
    /// Its content; `None` for a folder that belongs to no coordinator.
    pub(crate) content: Option<Content>,
}

impl Source {
    /// The version that a manifest describes.
    fn of(manifest: &Manifest) -> Self {
        Self { version: manifest.version, content: Some(manifest.content()) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Some(content) => write!(f, "{} with content {content}", self.version),
            None => write!(f, "{}", self.version),
        }
    }
}

/// The folder of policy versions of one worker.
#[derive(Debug)]
pub(crate) struct PolicyCache {
    coordinator: Coordinator,
    run_hash: String,
    folder: PathBuf,
    /// Verified by this process; the one used last comes first.
    recent: Vec<Source>,
    /// Whether version 0 is there as the model below adapters.
    has_base: bool,
}

/// Where a version lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The version's own files.
    pub(crate) version: PathBuf,
    /// The model and the tokenizer: the same folder, or that of version 0 for a version that is an adapter.
    pub(crate) model: PathBuf,
}

impl Place {
    /// Of a model's folder.
    #[cfg(test)]
    pub(crate) fn of_model(folder: &Path) -> Self {
        Self { version: folder.to_owned(), model: folder.to_owned() }
    }
}

impl PolicyCache {
    /// Uses `folder`, which is made if need be. What an earlier process left there is verified before use.
    pub(crate) fn new(coordinator: Coordinator, run_hash: &str, folder: &Path) -> Result<Self, Error> {
        durable::create_folder(folder)?;
        durable::remove_leftovers(folder)?;
        let (run_hash, folder) = (run_hash.to_owned(), folder.to_owned());
        Ok(Self { coordinator, run_hash, folder, recent: Vec::new(), has_base: false })
    }

    /// Where a version lies; it is fetched if need be. Removes versions that are no longer of use.
    pub(crate) async fn ensure(&mut self, wanted: Source) -> Result<Place, Error> {
        let version = wanted.version;
        let own = self.path(version);
        let known = self.recent.iter().position(|known| *known == wanted).filter(|_| own.is_dir());
        if let Some(place) = known {
            self.recent[..=place].rotate_right(1);
        } else {
            // The folder of a version may hold what superseded it by now.
            self.recent.retain(|known| known.version != version);
            let found = self.bring(version).await?;
            if found != wanted
                && let Some(content) = found.content
            {
                return Err(Error::Superseded { wanted, found: content });
            }
            self.recent.insert(0, wanted);
            self.recent.truncate(KEPT);
        }
        let shares_base = version != PolicyVersion::START && is_adapter(&own);
        if shares_base && !(self.has_base && self.path(PolicyVersion::START).is_dir()) {
            self.bring(PolicyVersion::START).await?;
            self.has_base = true;
        }
        let base = self.has_base.then_some(PolicyVersion::START);
        let recent = self.recent.iter().map(|known| known.version);
        fetch::prune(&self.folder, &recent.chain(base).collect::<Vec<_>>())?;
        let model = if shares_base { self.path(PolicyVersion::START) } else { own.clone() };
        Ok(Place { version: own, model })
    }

    /// Fetches and verifies a version, with the content that it has now.
    async fn bring(&self, version: PolicyVersion) -> Result<Source, Error> {
        let began = Instant::now();
        let failed = |source| Error::Fetch { version, folder: self.folder.clone(), source };
        let (manifest, path) = fetch(&self.coordinator, Some(version), &self.folder).await.map_err(failed)?;
        let source = Source::of(&manifest);
        self.check_run(version, manifest.run_hash)?;
        metrics::fetched(began.elapsed());
        tracing::debug!("{source} is in {}", path.display());
        Ok(source)
    }

    /// The coordinator's latest version, which is of this worker's run.
    pub(crate) async fn latest(&self) -> Result<Source, Error> {
        let message = self
            .coordinator
            .call("ask for the latest policy version", || {
                let mut client = self.coordinator.policy();
                async move { client.get_manifest(v1::GetManifestRequest { policy_version: None }).await }
            })
            .await?;
        let manifest = Manifest::try_from(message)?;
        let source = Source::of(&manifest);
        self.check_run(source.version, manifest.run_hash)?;
        Ok(source)
    }

    fn check_run(&self, version: PolicyVersion, found: String) -> Result<(), Error> {
        if found == self.run_hash {
            return Ok(());
        }
        let address = self.coordinator.address();
        Err(Error::OtherRun { version, address, found, expected: self.run_hash.clone() })
    }

    fn path(&self, version: PolicyVersion) -> PathBuf {
        self.folder.join(version.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::fake_coordinator::{FakeCoordinator, Server, connect};

    /// A coordinator with that many versions, which are files and nothing more.
    async fn coordinator(versions: u64) -> (FakeCoordinator, Server, Vec<TempDir>) {
        let fake = FakeCoordinator::new();
        let version = |version: u64| {
            let folder = tempfile::tempdir().unwrap();
            for name in ["config.json", "tokenizer.json"] {
                fs::write(folder.path().join(name), "{}").unwrap();
            }
            fs::write(folder.path().join("model.safetensors"), version.to_string()).unwrap();
            fake.change(|state| _ = state.policies.insert(version, folder.path().to_owned()));
            folder
        };
        let folders = (0..versions).map(version).collect();
        let server = fake.serve("127.0.0.1:0").await;
        (fake, server, folders)
    }

    fn versions(cache: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(cache.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_two_versions_used_last_are_kept() {
        let (fake, server, _folders) = coordinator(4).await;
        let folder = tempfile::tempdir().unwrap();
        let mut cache = PolicyCache::new(connect(&server.address), "cafe", folder.path()).unwrap();
        assert_eq!(cache.latest().await.unwrap(), fake.source(3));
        for (wanted, kept) in [
            (0, vec!["0"]),
            (1, vec!["0", "1"]),
            (0, vec!["0", "1"]),
            (2, vec!["0", "2"]),
            (3, vec!["2", "3"]),
        ] {
            let path = cache.ensure(fake.source(wanted)).await.unwrap().version;
            assert_eq!(fs::read_to_string(path.join("model.safetensors")).unwrap(), wanted.to_string());
            assert_eq!(versions(&folder), kept);
        }
        let fetched = fake.state().fetched;
        let weights = fetched.iter().filter(|(_, name)| name == "model.safetensors");
        assert_eq!(weights.map(|(version, _)| *version).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn adapters_keep_the_model_that_they_belong_to() {
        let (fake, server, folders) = coordinator(4).await;
        for folder in &folders[1..] {
            for name in ["config.json", "tokenizer.json", "model.safetensors"] {
                fs::remove_file(folder.path().join(name)).unwrap();
            }
            fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let mut cache = PolicyCache::new(connect(&server.address), "cafe", folder.path()).unwrap();
        for (wanted, kept) in [(2, vec!["0", "2"]), (3, vec!["0", "2", "3"]), (1, vec!["0", "1", "3"])] {
            let place = cache.ensure(fake.source(wanted)).await.unwrap();
            assert_eq!(place.version, folder.path().join(wanted.to_string()));
            assert_eq!(place.model, folder.path().join("0"));
            assert_eq!(versions(&folder), kept);
        }
    }

    #[tokio::test]
    async fn a_version_that_was_superseded_is_fetched_again_and_its_old_content_refused() {
        let (fake, server, folders) = coordinator(2).await;
        let folder = tempfile::tempdir().unwrap();
        let mut cache = PolicyCache::new(connect(&server.address), "cafe", folder.path()).unwrap();
        let before = fake.source(1);
        let path = cache.ensure(before).await.unwrap().version.join("model.safetensors");
        fs::write(folders[1].path().join("model.safetensors"), "other").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1", "nothing is fetched that no lease names");
        let after = fake.source(1);
        cache.ensure(after).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
        let error = cache.ensure(before).await.unwrap_err();
        assert!(error.is_gone(), "{error}");
        assert!(error.to_string().contains("policy version 1 with content"), "{error}");
        fs::remove_dir_all(folder.path().join("1")).unwrap();
        cache.ensure(after).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "other", "a folder that was removed is fetched again");
    }

    #[tokio::test]
    async fn what_another_process_left_is_verified_and_tidied() {
        let (fake, server, _folders) = coordinator(2).await;
        let folder = tempfile::tempdir().unwrap();
        let coordinator = connect(&server.address);
        let mut cache = PolicyCache::new(coordinator.clone(), "cafe", folder.path()).unwrap();
        cache.ensure(fake.source(0)).await.unwrap();
        let path = cache.ensure(fake.source(1)).await.unwrap().version.join("model.safetensors");
        fs::write(&path, "damaged").unwrap();

        fake.change(|state| state.fetched.clear());
        let mut cache = PolicyCache::new(coordinator, "cafe", folder.path()).unwrap();
        cache.ensure(fake.source(1)).await.unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "1");
        assert!(!fake.state().fetched.is_empty());
        assert_eq!(versions(&folder), ["1"]);
    }

    #[tokio::test]
    async fn a_version_of_another_run_is_refused_before_it_is_fetched() {
        let (fake, server, _folders) = coordinator(1).await;
        let folder = tempfile::tempdir().unwrap();
        let cache = PolicyCache::new(connect(&server.address), "f00d", folder.path()).unwrap();
        let error = cache.latest().await.unwrap_err().to_string();
        assert!(error.contains("hash cafe") && error.contains("hash f00d"), "{error}");
        assert!(fake.state().fetched.is_empty());
    }
}
