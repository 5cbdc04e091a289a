//! Policy versions on this host's disk: the most recently used ones, downloaded on first use.
//!
//! Returns the location of a version; the sampler reads the weights. A version is cached by number and content, since
//! another policy can supersede it under the same number. Versions that consist of an adapter share the model of
//! version 0, which is retained as long as they are in use.

use std::path::{Path, PathBuf};
use std::time::Instant;

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_model::is_adapter;
use podium_proto::v1;
use podium_transfer::{Content, Coordinator, Manifest, connection, fetch};

use crate::metrics;
use crate::source::Source;

/// Number of retained versions: the current and the previous one, since leases of two versions can alternate.
const RETAINED: usize = 2;

/// The reasons why a version is unavailable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The coordinator does not report its versions.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The manifest of the latest version is inconsistent.
    #[error("the coordinator sent an inconsistent policy manifest")]
    Manifest(#[from] podium_proto::convert::Error),
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

/// The folder of policy versions of one worker.
#[derive(Debug)]
pub(crate) struct PolicyCache {
    coordinator: Coordinator,
    run_hash: String,
    folder: PathBuf,
    /// Versions verified by this process; the most recently used first.
    recent: Vec<Source>,
    /// Whether version 0 is present as the base model of adapters.
    has_base: bool,
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
        durable::create_folder(folder)?;
        durable::remove_leftovers(folder)?;
        let (run_hash, folder) = (run_hash.to_owned(), folder.to_owned());
        Ok(Self { coordinator, run_hash, folder, recent: Vec::new(), has_base: false })
    }

    /// Returns the location of a version; downloads it if necessary. Removes versions that are not needed any more.
    pub(crate) async fn ensure(&mut self, wanted: Source) -> Result<PolicyFolders, Error> {
        let version = wanted.version;
        let own = self.path(version);
        let known = self.recent.iter().position(|known| *known == wanted).filter(|_| own.is_dir());
        if let Some(place) = known {
            self.recent[..=place].rotate_right(1);
        } else {
            // The folder of a version may hold its superseding content.
            self.recent.retain(|known| known.version != version);
            let found = self.download(version).await?;
            if found != wanted
                && let Some(content) = found.content
            {
                return Err(Error::Superseded { wanted, found: content });
            }
            self.recent.insert(0, wanted);
            self.recent.truncate(RETAINED);
        }
        let shares_base = version != PolicyVersion::START && is_adapter(&own);
        if shares_base && !(self.has_base && self.path(PolicyVersion::START).is_dir()) {
            self.download(PolicyVersion::START).await?;
            self.has_base = true;
        }
        let base = self.has_base.then_some(PolicyVersion::START);
        let recent = self.recent.iter().map(|known| known.version);
        fetch::prune(&self.folder, &recent.chain(base).collect::<Vec<_>>())?;
        let model = if shares_base { self.path(PolicyVersion::START) } else { own.clone() };
        Ok(PolicyFolders { version: own, model })
    }

    /// Downloads and verifies a version, with its present content.
    async fn download(&self, version: PolicyVersion) -> Result<Source, Error> {
        let began = Instant::now();
        let failed = |source| Error::Fetch { version, folder: self.folder.clone(), source };
        let (manifest, path) = fetch(&self.coordinator, Some(version), &self.folder).await.map_err(failed)?;
        let source = Source::of(&manifest);
        self.check_run(version, manifest.run_hash)?;
        metrics::fetched(began.elapsed());
        tracing::debug!("{source} is in {}", path.display());
        Ok(source)
    }

    /// Returns the coordinator's latest version, after checking that it belongs to this worker's run.
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
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
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
            assert_eq!(place.version, folder.path().join(wanted.to_string()));
            assert_eq!(place.model, folder.path().join("0"));
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
        cache.ensure(after).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
        let error = cache.ensure(before).await.unwrap_err();
        assert!(error.is_gone(), "{error}");
        assert!(error.to_string().contains("policy version 1 with content"), "{error}");
        fs::remove_dir_all(folder.path().join("1")).unwrap();
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

        fake.change(|state| state.fetched.clear());
        let mut cache = PolicyCache::new(coordinator, "cafe", folder.path()).unwrap();
        cache.ensure(fake.source(1)).await.unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "1");
        assert!(!fake.state().fetched.is_empty());
        assert_eq!(versions(&folder), ["1"]);
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
