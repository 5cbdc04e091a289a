//! Policy versions on this host's disk: the most recently used ones, linked or downloaded on first use.
//!
//! Returns the location of a version; the sampler reads the weights. A version is cached by number and content, since
//! another policy can supersede it under the same number. Versions that consist of an adapter share the model of
//! version 0, which is retained as long as they are in use.

use std::path::{Path, PathBuf};
use std::time::Instant;

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_model::is_adapter;
use podium_transfer::cache::{Cache, Held};
use podium_transfer::{Content, Coordinator, connection, fetch};

use crate::metrics;
use crate::source::Source;

/// Number of retained versions: the current and the previous one, since leases of two versions can alternate.
const RETAINED: usize = 2;

/// The reasons why a version is unavailable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The coordinator does not report its latest version.
    #[error(transparent)]
    Latest(fetch::Error),
    /// The version could not be downloaded.
    #[error("cannot download {version} into {}", folder.display())]
    Fetch {
        /// The version.
        version: PolicyVersion,
        /// The target folder.
        folder: PathBuf,
        /// The cause.
        source: fetch::Error,
    },
    /// The version belongs to another run.
    #[error(
        "{version} of the coordinator at {address} belongs to a run with hash {found}: this worker's run file has hash {expected}; start the worker with the coordinator's run file"
    )]
    OtherRun {
        /// The version.
        version: PolicyVersion,
        /// The coordinator's address.
        address: String,
        /// The manifest's run hash.
        found: String,
        /// This worker's run hash.
        expected: String,
    },
    /// Another policy superseded the version.
    #[error("{wanted} was superseded: the coordinator now serves content {found} under this version")]
    Superseded {
        /// The lease's version.
        wanted: Source,
        /// The available content.
        found: Content,
    },
    /// The folder cannot be written or cleaned.
    #[error(transparent)]
    Folder(#[from] durable::Error),
}

impl Error {
    /// Whether the coordinator does not serve the version (any more).
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Fetch { source, .. } => {
                source.kind() == fetch::Kind::Connection(connection::Kind::NotFound)
            }
            Self::Superseded { .. } => true,
            _ => false,
        }
    }
}

/// The policy versions that this worker uses, in a folder that the workers of a host may share.
#[derive(Debug)]
pub(crate) struct PolicyCache {
    coordinator: Coordinator,
    run_hash: String,
    cache: Cache,
    /// The most recently used versions, first the last one.
    recent: Vec<Held>,
    /// Version 0, if it is the base model of adapters.
    base: Option<Held>,
    /// Whether versions are downloaded as deltas.
    deltas: bool,
}

/// The folders of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyFolders {
    /// The version's own files.
    pub(crate) version: PathBuf,
    /// The model and the tokenizer: the same folder, or that of version 0 if the version is an adapter.
    pub(crate) model: PathBuf,
}

impl PolicyFolders {
    /// The location of a complete model.
    #[cfg(test)]
    pub(crate) fn of_model(folder: &Path) -> Self {
        Self { version: folder.to_owned(), model: folder.to_owned() }
    }
}

impl PolicyCache {
    /// Opens `folder`, which is created if necessary. Versions of an earlier process are verified before use.
    pub(crate) fn new(coordinator: Coordinator, run_hash: &str, folder: &Path) -> Result<Self, Error> {
        let (run_hash, cache) = (run_hash.to_owned(), Cache::open(folder)?);
        Ok(Self { coordinator, run_hash, cache, recent: Vec::new(), base: None, deltas: true })
    }

    /// Sets whether versions are downloaded as deltas; by default they are.
    #[must_use]
    pub(crate) fn with_deltas(self, deltas: bool) -> Self {
        Self { deltas, ..self }
    }

    /// Returns the location of a version; downloads it if necessary. Removes versions that no worker needs any more.
    pub(crate) async fn ensure(&mut self, wanted: Source) -> Result<PolicyFolders, Error> {
        let is_known = |held: &Held| Source::of(held.manifest()) == wanted && held.is_intact();
        if let Some(place) = self.recent.iter().position(is_known) {
            self.recent[..=place].rotate_right(1);
        } else {
            // The version may have been superseded.
            self.recent.retain(|held| held.manifest().version != wanted.version);
            let held = self.hold(wanted.version, wanted.content).await?;
            self.recent.insert(0, held);
            self.recent.truncate(RETAINED);
        }
        let version = self.recent[0].folder().to_owned();
        let shares_base = wanted.version != PolicyVersion::START && is_adapter(&version);
        if shares_base && !self.base.as_ref().is_some_and(Held::is_intact) {
            self.base = Some(self.hold(PolicyVersion::START, None).await?);
        }
        self.cache.prune(&self.recent.iter().chain(&self.base).collect::<Vec<_>>())?;
        let base = self.base.as_ref().filter(|_| shares_base);
        let model = base.map_or_else(|| version.clone(), |base| base.folder().to_owned());
        Ok(PolicyFolders { version, model })
    }

    /// Downloads and verifies a version, of this content if one is given.
    async fn hold(&self, version: PolicyVersion, content: Option<Content>) -> Result<Held, Error> {
        let began = Instant::now();
        let folder = self.cache.folder();
        let failed = |source| Error::Fetch { version, folder: folder.to_owned(), source };
        let served = fetch::served(&self.coordinator, Some(version)).await.map_err(failed)?;
        let found = Source::of(served.manifest());
        self.check_run(version, &served.manifest().run_hash)?;
        if let (Some(_), Some(served)) = (content, found.content)
            && content != found.content
        {
            return Err(Error::Superseded { wanted: Source { version, content }, found: served });
        }
        let base = self.recent.first().filter(|_| self.deltas);
        let held = self.cache.hold(&self.coordinator, &served, base).await.map_err(failed)?;
        metrics::fetched(began.elapsed());
        tracing::debug!("{found} is in {}", held.folder().display());
        Ok(held)
    }

    /// Returns the coordinator's latest version, after checking that it belongs to this worker's run.
    pub(crate) async fn latest(&self) -> Result<Source, Error> {
        let served = fetch::served(&self.coordinator, None).await.map_err(Error::Latest)?;
        let source = Source::of(served.manifest());
        self.check_run(source.version, &served.manifest().run_hash)?;
        Ok(source)
    }

    fn check_run(&self, version: PolicyVersion, found: &str) -> Result<(), Error> {
        if found == self.run_hash {
            return Ok(());
        }
        let (address, found) = (self.coordinator.address(), found.to_owned());
        Err(Error::OtherRun { version, address, found, expected: self.run_hash.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::fake_coordinator::{FakeCoordinator, Server, State, connect};

    /// A coordinator with `versions` versions of placeholder files.
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
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // "7-0123456789ab" without the content; the lock file is hidden.
        let version =
            |name: String| Some(name.split_once('-')?.0.to_owned()).filter(|name| !name.starts_with('.'));
        let mut versions: Vec<_> = names.filter_map(version).collect();
        versions.sort();
        versions
    }

    #[tokio::test]
    async fn the_two_most_recently_used_versions_are_retained() {
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
    async fn adapters_retain_their_base_model() {
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
            let path = |version| folder.path().join(fake.source(version).folder_name());
            assert_eq!((place.version, place.model), (path(wanted), path(0)));
            assert_eq!(versions(&folder), kept);
        }
    }

    #[tokio::test]
    async fn a_superseded_version_is_downloaded_again_and_its_old_content_refused() {
        let (fake, server, folders) = coordinator(2).await;
        let folder = tempfile::tempdir().unwrap();
        let mut cache = PolicyCache::new(connect(&server.address), "cafe", folder.path()).unwrap();
        let before = fake.source(1);
        let path = cache.ensure(before).await.unwrap().version.join("model.safetensors");
        fs::write(folders[1].path().join("model.safetensors"), "other").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1", "only versions of leases are downloaded");
        let after = fake.source(1);
        let path = cache.ensure(after).await.unwrap().version.join("model.safetensors");
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
        assert_eq!(versions(&folder), ["1"], "the superseded content is removed");
        let error = cache.ensure(before).await.unwrap_err();
        assert!(error.is_gone(), "{error}");
        assert!(error.to_string().contains("policy version 1 with content"), "{error}");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        cache.ensure(after).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "other", "a removed folder is downloaded again");
    }

    #[tokio::test]
    async fn files_of_an_earlier_process_are_verified_and_cleaned() {
        let (fake, server, _folders) = coordinator(2).await;
        let folder = tempfile::tempdir().unwrap();
        let coordinator = connect(&server.address);
        let mut cache = PolicyCache::new(coordinator.clone(), "cafe", folder.path()).unwrap();
        cache.ensure(fake.source(0)).await.unwrap();
        let path = cache.ensure(fake.source(1)).await.unwrap().version.join("model.safetensors");
        fs::write(&path, "damaged").unwrap();
        drop(cache);

        fake.change(|state| state.fetched.clear());
        let mut cache = PolicyCache::new(coordinator, "cafe", folder.path()).unwrap();
        cache.ensure(fake.source(1)).await.unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "1");
        assert!(!fake.state().fetched.is_empty());
        assert_eq!(versions(&folder), ["1"]);
    }

    #[tokio::test]
    async fn a_file_that_is_damaged_while_it_is_in_use_is_downloaded_again() {
        let (fake, server, _folders) = coordinator(1).await;
        let folder = tempfile::tempdir().unwrap();
        let mut cache = PolicyCache::new(connect(&server.address), "cafe", folder.path()).unwrap();
        let path = cache.ensure(fake.source(0)).await.unwrap().version.join("model.safetensors");
        fs::write(&path, "1").unwrap();
        cache.ensure(fake.source(0)).await.unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "0");
    }

    #[tokio::test]
    async fn workers_share_a_folder() {
        let (fake, server, _folders) = coordinator(4).await;
        let folder = tempfile::tempdir().unwrap();
        let open = || PolicyCache::new(connect(&server.address), "cafe", folder.path()).unwrap();
        let (mut one, mut other) = (open(), open());
        let (first, second) = tokio::join!(one.ensure(fake.source(0)), other.ensure(fake.source(0)));
        assert_eq!(first.unwrap(), second.unwrap());
        let weights =
            |state: &State| state.fetched.iter().filter(|(_, name)| name == "model.safetensors").count();
        assert_eq!(weights(&fake.state()), 1, "one of them downloads it");
        for version in 1..4 {
            one.ensure(fake.source(version)).await.unwrap();
        }
        assert_eq!(versions(&folder), ["0", "2", "3"], "the other uses version 0");
        other.ensure(fake.source(2)).await.unwrap();
        other.ensure(fake.source(3)).await.unwrap();
        assert_eq!(versions(&folder), ["2", "3"]);
        assert_eq!(weights(&fake.state()), 4);
    }

    #[tokio::test]
    async fn a_version_of_another_run_is_refused_before_the_download() {
        let (fake, server, _folders) = coordinator(1).await;
        let folder = tempfile::tempdir().unwrap();
        let cache = PolicyCache::new(connect(&server.address), "f00d", folder.path()).unwrap();
        let error = cache.latest().await.unwrap_err().to_string();
        assert!(error.contains("hash cafe") && error.contains("hash f00d"), "{error}");
        assert!(fake.state().fetched.is_empty());
    }
}
