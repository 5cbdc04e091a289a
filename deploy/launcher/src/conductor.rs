//! Conducts a run on this machine: the coordinator first, then workers and learner ranks, until the run is over, is
//! interrupted or cannot go on.

use std::path::PathBuf;
use std::time::Duration;

use podium_config::RunFile;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::processes::{self, Event, Fleet};
use crate::progress::Progress;
use crate::report;
use crate::restart::Policy;
use crate::run_folder::{self, RunFolder};
use crate::services::{Programs, Services};
use crate::status_stream::{self, StatusStream, Update};

/// How long the coordinator may take to serve: it may have to generate a data set or import a large policy.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// How often its announcement is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// How long workers and ranks may take to leave once the coordinator has told them that the run is over.
const FAREWELL: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Process(#[from] processes::Error),
    #[error(transparent)]
    Folder(#[from] run_folder::Error),
    #[error(transparent)]
    Status(#[from] status_stream::Error),
    #[error("the coordinator did not serve within {} s; its log is {}", START_DEADLINE.as_secs(), log.display())]
    NotServing { log: PathBuf },
    #[error("the coordinator left before the run was over; its log is {}", log.display())]
    LeftEarly { log: PathBuf },
}

/// How a run that could be conducted ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished,
    /// By a signal, with so many steps committed.
    Interrupted {
        step: u64,
    },
}

/// Runs all services of `run` until it is over. The folder is locked and holds the run file.
pub(crate) async fn conduct(
    programs: &Programs,
    run: &RunFile,
    folder: &RunFolder,
    progress: &mut Progress,
    stop: &CancellationToken,
) -> Result<Outcome, Error> {
    let (sender, mut events) = mpsc::channel(64);
    let mut stage = Stage {
        services: Services { programs, run, folder },
        coordinator: Fleet::new(Policy::default(), sender.clone()),
        others: Fleet::new(Policy::default(), sender),
        progress,
        step: 0,
    };
    let outcome = tokio::select! {
        outcome = stage.play(&mut events) => outcome,
        () = stop.cancelled() => Ok(Outcome::Interrupted { step: stage.step }),
    };
    if let Ok(Outcome::Interrupted { .. }) = outcome {
        stage.progress.say("stopping all services; another Ctrl-C ends them at once");
    }
    stage.clear(matches!(outcome, Ok(Outcome::Finished))).await;
    outcome
}

struct Stage<'a> {
    services: Services<'a>,
    coordinator: Fleet,
    others: Fleet,
    progress: &'a mut Progress,
    step: u64,
}

impl Stage<'_> {
    async fn play(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<Outcome, Error> {
        self.coordinator.start(self.services.coordinator());
        let log = self.services.folder.log("coordinator");
        let address = match tokio::time::timeout(START_DEADLINE, self.coordinator_address(events)).await {
            Ok(address) => address?,
            Err(_) => return Err(Error::NotServing { log }),
        };
        for service in self.services.others(&address) {
            self.others.start(service);
        }
        let mut statuses = StatusStream::open(&address)?;
        loop {
            tokio::select! {
                update = statuses.next() => self.show(update),
                Some(event) = events.recv() => self.tell(&event),
                left = self.others.next_end() => left?,
                left = self.coordinator.next_end() => {
                    left?;
                    let finished = self.services.folder.is_finished();
                    return if finished { Ok(Outcome::Finished) } else { Err(Error::LeftEarly { log }) };
                }
            }
        }
    }

    /// Where the coordinator that was just started serves. One that dies before is not started again: it says why.
    async fn coordinator_address(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<String, Error> {
        let mut own_pid = None;
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                Some(event) = events.recv() => match event {
                    Event::Started { pid, .. } => own_pid = Some(pid),
                    Event::Died { death, .. } => return Err(processes::Error::given_up(death, 1).into()),
                },
                left = self.coordinator.next_end() => {
                    left?;
                    return Err(Error::LeftEarly { log: self.services.folder.log("coordinator") });
                }
                _ = look.tick() => {
                    let announced = self.services.folder.announcement()?;
                    if let Some(announced) = announced.filter(|announced| Some(announced.pid) == own_pid) {
                        let named = &self.services.run.network.coordinator;
                        return Ok(named.clone().unwrap_or_else(|| reachable(&announced.listen)));
                    }
                }
            }
        }
    }

    fn show(&mut self, update: Update) {
        // A coordinator that is away is started again, or its death ends the run.
        let Update::Status(status) = update else { return };
        self.step = status.step;
        if self.progress.show(&status)
            && let Err(error) = report::write(self.services.folder)
        {
            self.progress.say(&format!("no report for now: {error}"));
        }
    }

    fn tell(&self, event: &Event) {
        if let Event::Died { death, restart_after } = event {
            let (name, how, after) = (&death.name, &death.how, restart_after.as_secs_f64());
            self.progress.say(&format!("{name} died ({how}) and is started again in {after:.1} s"));
            if let Some(line) = processes::last_line(&death.log) {
                self.progress.say(&format!("  it said last: {line}"));
            }
        }
    }

    /// Workers and ranks go first: leaving, they still have something to tell the coordinator.
    async fn clear(self, run_over: bool) {
        self.others.stop(if run_over { FAREWELL } else { Duration::ZERO }).await;
        self.coordinator.stop(Duration::ZERO).await;
    }
}

/// An address that can be connected to: a coordinator that listens on all interfaces is reached on this machine's own.
fn reachable(address: &str) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => {
            let host = if socket.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            format!("{host}:{}", socket.port())
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_interfaces_are_reached_on_the_own_one() {
        assert_eq!(reachable("0.0.0.0:4100"), "127.0.0.1:4100");
        assert_eq!(reachable("[::]:4100"), "[::1]:4100");
        assert_eq!(reachable("10.0.0.7:4100"), "10.0.0.7:4100");
        assert_eq!(reachable("trainer.local:4100"), "trainer.local:4100");
    }
}
