//! The coordinator process of a load test.

use std::path::PathBuf;
use std::time::Duration;

use podium_transfer::Announcement;
use tokio::sync::mpsc;

use super::error::Error;
use crate::processes::{Event, Fleet, Service};
use crate::restart::Policy;
use crate::run_folder::RunFolder;

/// Time limit of its start: it may have to generate a data set or import a large policy.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// Interval between checks for its announcement.
const LOOK: Duration = Duration::from_millis(50);

/// A coordinator process. It is not restarted.
pub(super) struct CoordinatorProcess {
    fleet: Fleet,
    log: PathBuf,
}

impl CoordinatorProcess {
    /// Starts the service in its run's folder and waits until it serves.
    pub(super) async fn start(service: Service, folder: &RunFolder) -> Result<(Self, Announcement), Error> {
        let (sender, mut events) = mpsc::channel(4);
        let log = service.log.clone();
        let mut fleet = Fleet::new(Policy { restarts: 0, ..Policy::default() }, sender);
        fleet.start(service);
        let mut process = Self { fleet, log: log.clone() };
        let serving = async {
            let (mut own_pid, mut look) = (None, tokio::time::interval(LOOK));
            loop {
                tokio::select! {
                    Some(event) = events.recv() => if let Event::Started { pid } = event {
                        own_pid = Some(pid);
                    },
                    error = process.failed() => return Err(error),
                    _ = look.tick() => {
                        let announced = folder.announcement()?;
                        if let Some(announced) = announced.filter(|announced| Some(announced.pid) == own_pid) {
                            return Ok(announced);
                        }
                    }
                }
            }
        };
        let served = tokio::time::timeout(START_DEADLINE, serving).await;
        match served.unwrap_or(Err(Error::NotServing { seconds: START_DEADLINE.as_secs(), log })) {
            Ok(announced) => Ok((process, announced)),
            Err(error) => {
                process.stop().await;
                Err(error)
            }
        }
    }

    /// Waits until the process exits, which it should not.
    pub(super) async fn failed(&mut self) -> Error {
        match self.fleet.next_end().await {
            Ok(()) => Error::Exited { log: self.log.clone() },
            Err(error) => error.into(),
        }
    }

    /// Stops the process.
    pub(super) async fn stop(self) {
        self.fleet.stop(Duration::ZERO).await;
    }
}
