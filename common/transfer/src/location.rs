//! The address of a run's coordinator: given, or announced by a file in the run folder.
//!
//! The file is read again whenever the coordinator cannot be reached, so running processes find a coordinator
//! that restarts on another host.

use std::path::{Path, PathBuf};

use podium_config::Network;

use crate::announcement::{self, Announcement};

/// Environment variable with the coordinator's host:port, used without a flag.
pub const VARIABLE: &str = "PODIUM_COORDINATOR";
/// Environment variable with the run folder, used without a flag and an address.
pub const FOLDER_VARIABLE: &str = "PODIUM_COORDINATOR_FROM";

/// Source of the coordinator's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoordinatorLocation {
    /// This address, host:port.
    Named(String),
    /// This announcement file.
    Announced(PathBuf),
}

impl CoordinatorLocation {
    /// Selects the source: the flags' address or run folder, else the environment's ([`VARIABLE`],
    /// [`FOLDER_VARIABLE`]), else the run file's.
    pub fn choose(address: Option<&str>, run_folder: Option<&Path>, network: &Network) -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let address_variable = variable(VARIABLE).map(|value| value.to_string_lossy().into_owned());
        let folder_variable = variable(FOLDER_VARIABLE).map(PathBuf::from);
        Self::first(
            &[(address, run_folder), (address_variable.as_deref(), folder_variable.as_deref())],
            network,
        )
    }

    fn first(layers: &[(Option<&str>, Option<&Path>)], network: &Network) -> Self {
        for (address, folder) in layers {
            if let Some(address) = address {
                return Self::Named((*address).to_owned());
            }
            if let Some(folder) = folder {
                return Self::Announced(folder.join(announcement::FILE));
            }
        }
        Self::Named(network.coordinator.as_ref().unwrap_or(&network.listen).clone())
    }

    /// Returns the address that is currently known.
    pub(crate) async fn look(&self) -> Result<String, announcement::Error> {
        match self {
            Self::Named(address) => Ok(address.clone()),
            Self::Announced(path) => Ok(Announcement::read_async(path).await?.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_run_file() {
        let folder = Path::new("run");
        let announced = CoordinatorLocation::Announced(folder.join(announcement::FILE));
        let named = |address: &str| CoordinatorLocation::Named(address.to_owned());
        let network = Network { coordinator: Some("file:1".into()), ..Network::default() };
        let first = |flags, environment| CoordinatorLocation::first(&[flags, environment], &network);
        assert_eq!(first((Some("flag:1"), None), (Some("variable:1"), None)), named("flag:1"));
        assert_eq!(first((None, Some(folder)), (Some("variable:1"), None)), announced);
        assert_eq!(first((None, None), (Some("variable:1"), Some(folder))), named("variable:1"));
        assert_eq!(first((None, None), (None, Some(folder))), announced);
        assert_eq!(first((None, None), (None, None)), named("file:1"));
        let listen = Network { coordinator: None, listen: "here:1".into(), ..network };
        assert_eq!(CoordinatorLocation::first(&[], &listen), named("here:1"));
    }
}
