//! coordinator.json in the output folder: the coordinator's address, its process, and why it exited.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podium_files::durable;
use podium_service::{advertise, logs, shutdown};
use podium_transfer::{self as transfer, announcement};

use crate::actor::ExitReason;

/// Time between two checks of the announcement.
const LOOK: Duration = Duration::from_millis(500);

/// Owner of the announcement in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Own,
    Another,
    /// No announcement.
    Nothing,
}

/// The announcement of a coordinator that serves.
#[derive(Debug)]
pub(crate) struct Announcement {
    path: PathBuf,
    content: transfer::Announcement,
}

impl Announcement {
    /// Creates the announcement of a coordinator that is bound to `listen` and that others reach at
    /// `advertised`.
    pub(crate) fn new(
        out: &Path,
        advertised: &str,
        listen: SocketAddr,
        metrics_address: Option<SocketAddr>,
        run_id: &str,
    ) -> Self {
        let content = transfer::Announcement {
            address: advertised.to_owned(),
            listen: listen.to_string(),
            metrics_address: metrics_address.map(|address| address.to_string()),
            pid: std::process::id(),
            host: advertise::host_name(),
            run_id: run_id.to_owned(),
            ended: None,
        };
        Self { path: out.join(announcement::FILE), content }
    }

    /// Writes the announcement; `ended`: the reason why the coordinator no longer serves.
    pub(crate) fn write(&self, ended: Option<&str>) -> Result<(), durable::Error> {
        let ended = ended.map(str::to_owned);
        transfer::Announcement { ended, ..self.content.clone() }.write(&self.path)
    }

    /// Rewrites the announcement whenever it was removed or damaged.
    pub(crate) async fn keep(&self) -> Infallible {
        let mut failed = false;
        loop {
            tokio::time::sleep(LOOK).await;
            if self.found() != Found::Nothing {
                continue;
            }
            let written = self.write(None);
            match &written {
                Ok(()) => {
                    tracing::warn!("{} was changed or removed: it is rewritten", self.path.display());
                }
                Err(error) if !failed => {
                    tracing::error!("others may not find this coordinator: {}", logs::describe(error));
                }
                Err(_) => {}
            }
            failed = written.is_err();
        }
    }

    /// Adds the reason why the coordinator ended.
    pub(crate) fn end<E: std::error::Error + 'static>(&self, outcome: &Result<ExitReason, E>) {
        let why = match outcome {
            Ok(ExitReason::Complete) => "the run is complete".to_owned(),
            Ok(ExitReason::Drained { reason }) => reason.clone(),
            Ok(ExitReason::Stopped) => format!("stopped by {}", shutdown::received().unwrap_or("its owner")),
            Err(error) => logs::describe(error),
        };
        // Another coordinator may have taken the folder over.
        if self.found() != Found::Another
            && let Err(error) = self.write(Some(&why))
        {
            tracing::warn!("{}", logs::describe(&error));
        }
    }

    /// Returns the owner of the announcement in the file.
    fn found(&self) -> Found {
        match transfer::Announcement::read(&self.path) {
            Ok(found) if found == self.content => Found::Own,
            Ok(_) => Found::Another,
            Err(_) => Found::Nothing,
        }
    }
}

/// Returns the port that the previous coordinator listened on; `None` without a readable announcement.
pub(crate) fn port_of_before(out: &Path) -> Option<String> {
    match transfer::Announcement::read(&out.join(announcement::FILE)) {
        Ok(before) => Some(before.listen.rsplit_once(':')?.1.to_owned()),
        Err(error) => {
            if !error.is_missing() {
                tracing::warn!("this coordinator listens on a new port: {}", logs::describe(&error));
            }
            None
        }
    }
}
