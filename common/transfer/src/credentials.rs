//! The secret that a client adds to its calls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use podium_config::Network;
use podium_service::logs::describe;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::location::CoordinatorLocation;
use crate::secret::{self, Secret};

/// A channel whose calls carry the run's secret.
pub type AuthenticatedChannel = InterceptedService<Channel, Authorization>;

/// The secret of a client, read from its file on first use. Clones share it. The default adds no secret to calls, which
/// every coordinator refuses.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    file: Option<PathBuf>,
    secret: Arc<Mutex<Option<Secret>>>,
}

impl Credentials {
    /// Returns the credentials in a file.
    pub fn from_file(file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), secret: Arc::default() }
    }

    /// Selects the file of a process that reads `run_file`: the configured one ([`secret::configured`]), else
    /// `run.secret` in the run folder that announces the coordinator, else `run.secret` beside the run file.
    pub fn choose(coordinator: &CoordinatorLocation, run_file: &Path, network: &Network) -> Self {
        Self::from_file(secret::configured(network).unwrap_or_else(|| {
            let beside = match coordinator {
                CoordinatorLocation::Announced(announcement) => announcement,
                CoordinatorLocation::Named(_) => run_file,
            };
            beside.with_file_name(secret::FILE)
        }))
    }

    /// Returns a channel whose calls carry the secret, or fail with the reason why it cannot be read.
    pub fn authenticate(&self, channel: Channel) -> AuthenticatedChannel {
        InterceptedService::new(channel, Authorization(self.metadata()))
    }

    /// Fails if the secret can never be used: a missing file may still be created.
    pub(crate) fn check(&self) -> Result<(), secret::Error> {
        match self.load() {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads the file again, and returns whether the secret has changed.
    pub(crate) fn renew(&self) -> bool {
        let Some(Ok(fresh)) = self.file.as_deref().map(Secret::read) else { return false };
        let mut known = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(fresh) != *known
    }

    fn load(&self) -> Result<Option<Secret>, secret::Error> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut known = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = Some(Secret::read(file)?);
        }
        Ok(known.clone())
    }

    fn metadata(&self) -> Result<Option<MetadataValue<Ascii>>, Status> {
        match self.load() {
            Ok(secret) => Ok(secret.map(|secret| secret.metadata())),
            Err(error) if error.is_missing() => Err(Status::unavailable(describe(&error))),
            Err(error) => Err(Status::unauthenticated(describe(&error))),
        }
    }
}

/// Adds the secret to a call. Without a readable secret the call fails before it is sent.
#[derive(Debug, Clone)]
pub struct Authorization(Result<Option<MetadataValue<Ascii>>, Status>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = self.0.clone()? {
            request.metadata_mut().insert(secret::METADATA, value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_is_in_the_run_folder_or_beside_the_run_file_unless_configured() {
        let folder = CoordinatorLocation::Announced("/shared/run/coordinator.json".into());
        let address = CoordinatorLocation::Named("trainer:1".into());
        let file = |coordinator, network: &Network| {
            Credentials::choose(coordinator, Path::new("/etc/podium/run.toml"), network).file.unwrap()
        };
        let network = Network::default();
        assert_eq!(file(&folder, &network), Path::new("/shared/run/run.secret"));
        assert_eq!(file(&address, &network), Path::new("/etc/podium/run.secret"));
        let network = Network { secret_file: Some("/run/secrets/podium".into()), ..network };
        assert_eq!(file(&folder, &network), Path::new("/run/secrets/podium"));
        assert_eq!(file(&address, &network), Path::new("/run/secrets/podium"));
    }

    #[test]
    fn a_missing_secret_can_still_appear_and_a_replaced_one_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(secret::FILE);
        let credentials = Credentials::from_file(&file);
        credentials.check().unwrap();
        let status = Authorization(credentials.metadata()).call(Request::new(())).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(
            status.message().contains("run.secret") && status.message().contains(secret::VARIABLE),
            "{status}"
        );

        let first = Secret::of_run(folder.path(), &Network::default()).unwrap();
        let sent = || {
            let request = Authorization(credentials.metadata()).call(Request::new(())).unwrap();
            request.metadata().get(secret::METADATA).unwrap().clone()
        };
        assert!(first.accepts(sent().as_bytes()));
        assert!(!credentials.renew(), "it has not changed");
        fs::remove_file(&file).unwrap();
        assert!(!credentials.renew(), "there is no other");
        let second = Secret::of_run(folder.path(), &Network::default()).unwrap();
        assert!(first.accepts(sent().as_bytes()), "it is read only once");
        assert!(credentials.renew());
        assert!(second.accepts(sent().as_bytes()));
        let request = Authorization(Credentials::default().metadata()).call(Request::new(())).unwrap();
        assert!(request.metadata().is_empty());
    }

    #[test]
    fn an_unusable_secret_fails_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(secret::FILE);
        fs::write(&file, "secret").unwrap();
        let credentials = Credentials::from_file(&file);
        assert!(credentials.check().is_err());
        let status = Authorization(credentials.metadata()).call(Request::new(())).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
    }
}
