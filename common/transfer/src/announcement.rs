//! `coordinator.json` in the run's folder: the coordinator's address, its process, and the reason why it
//! ended. The coordinator writes the file and the other processes read it, all through [`Announcement`].

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use podium_files::durable;
use podium_service::advertise;
use serde::{Deserialize, Serialize};

/// Name of the file in the run's folder.
pub const FILE: &str = "coordinator.json";

/// The reasons why there is no announcement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read: no coordinator has written it, or the folder is not visible from this host.
    #[error("no coordinator has announced itself in {}", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The content is not an announcement.
    #[error(
        "{} is not a valid announcement (a running coordinator rewrites it within a second; otherwise start the run again)",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
}

impl Error {
    /// Returns whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Absent { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The announcement of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// host:port at which other hosts reach it.
    pub address: String,
    /// The address that it is bound to on its own host.
    pub listen: String,
    /// The address that its metrics endpoint is bound to.
    #[serde(default)]
    pub metrics_address: Option<String>,
    /// Its process id.
    pub pid: u32,
    /// Its host's name.
    #[serde(default)]
    pub host: String,
    /// The run that it serves.
    #[serde(default)]
    pub run_id: String,
    /// The reason why it ended, if it was able to write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

impl Announcement {
    /// Reads an announcement.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(path, std::fs::read(path))
    }

    /// Reads an announcement without blocking the task.
    pub(crate) async fn read_async(path: &Path) -> Result<Self, Error> {
        Self::parse(path, tokio::fs::read(path).await)
    }

    fn parse(path: &Path, content: io::Result<Vec<u8>>) -> Result<Self, Error> {
        let bytes = content.map_err(|source| Error::Absent { path: path.to_owned(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
    }

    /// Replaces the announcement at `path` with this one.
    pub fn write(&self, path: &Path) -> Result<(), durable::Error> {
        durable::write_with(path, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            io::Write::write_all(file, b"\n")
        })
    }

    /// Returns whether the process is known to have ended: the announcement states it, or the process was on this
    /// host and no longer exists.
    pub fn is_over(&self) -> bool {
        let gone = || !Path::new("/proc").join(self.pid.to_string()).exists();
        self.ended.is_some() || (self.is_here() && gone())
    }

    /// Returns an address that this host can connect to.
    pub fn reachable(&self) -> String {
        if self.is_here() { self.reachable_here() } else { self.address.clone() }
    }

    fn is_here(&self) -> bool {
        !self.host.is_empty() && self.host == advertise::host_name()
    }

    /// Returns an address that the coordinator's own host can connect to: the loopback address if the
    /// coordinator listens on all interfaces.
    pub fn reachable_here(&self) -> String {
        match self.listen.parse::<SocketAddr>() {
            Ok(socket) if socket.ip().is_unspecified() => {
                let host = if socket.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                format!("{host}:{}", socket.port())
            }
            _ => self.listen.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(listen: &str, pid: u32, host: &str) -> Announcement {
        Announcement {
            address: "trainer:1".into(),
            listen: listen.into(),
            metrics_address: None,
            pid,
            host: host.into(),
            run_id: String::new(),
            ended: None,
        }
    }

    #[test]
    fn an_announcement_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert!(Announcement::read(&path).unwrap_err().is_missing());
        let written = Announcement { ended: Some("SIGTERM".into()), ..announced("[::]:1", 7, "here") };
        written.write(&path).unwrap();
        assert_eq!(Announcement::read(&path).unwrap(), written);
        std::fs::write(&path, "{\"addr").unwrap();
        let error = Announcement::read(&path).unwrap_err();
        assert!(!error.is_missing());
        assert!(error.to_string().contains("coordinator.json is not a valid announcement"), "{error}");
    }

    #[test]
    fn a_coordinator_has_ended_if_announced_or_if_its_process_has_ended() {
        let (here, own) = (advertise::host_name(), std::process::id());
        assert!(!announced("10.0.0.7:1", own, &here).is_over());
        assert!(announced("10.0.0.7:1", u32::MAX, &here).is_over());
        assert!(!announced("10.0.0.7:1", u32::MAX, "elsewhere.invalid").is_over());
        let ended = Announcement { ended: Some("SIGTERM".into()), ..announced("10.0.0.7:1", own, &here) };
        assert!(ended.is_over());
    }

    #[test]
    fn all_interfaces_include_the_loopback_device() {
        for (listen, expected) in [
            ("0.0.0.0:4100", "127.0.0.1:4100"),
            ("[::]:4100", "[::1]:4100"),
            ("10.0.0.7:4100", "10.0.0.7:4100"),
        ] {
            assert_eq!(announced(listen, 1, "").reachable_here(), expected);
        }
    }
}
