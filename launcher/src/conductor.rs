//! Runs all services on this machine: the coordinator first, then workers and learner ranks, until the run is over,
//! is interrupted or fails.

use std::path::PathBuf;
use std::time::Duration;

use podium_config::RunFile;
use podium_proto::v1::RunPhase;
use podium_service::{logs, shutdown};
use podium_transfer::Announcement;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::devices::Table;
use crate::processes::{self, Event, Fleet};
use crate::progress::Progress;
use crate::report;
use crate::restart::Policy;
use crate::run_folder::{self, RunFolder};
use crate::services::{Programs, Services};
use crate::status_stream::{self, StatusStream, Update};

/// Time limit of the coordinator's start: it may have to generate a data set or import a large policy.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// Interval between checks for its announcement.
const LOOK: Duration = Duration::from_millis(50);
/// Time after which a silent running coordinator is reported.
const SILENCE: Duration = Duration::from_secs(10);
/// Time limit for the exit of workers and ranks after the end of the run.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

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
    #[error("the coordinator exited before the end of the run; its log is {}", log.display())]
    LeftEarly { log: PathBuf },
}

/// Outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished,
    /// A signal ended it, with this many committed steps.
    Interrupted {
        step: u64,
    },
    /// A request to the coordinator ended it, with this many committed steps.
    Drained {
        step: u64,
        reason: String,
    },
}

/// Runs all services of `run` until it is over. The folder is locked and contains the run file.
pub(crate) async fn conduct(
    programs: &Programs,
    run: &RunFile,
    folder: &RunFolder,
    devices: &Table,
    progress: &mut Progress,
    stop: &CancellationToken,
) -> Result<Outcome, Error> {
    let (sender, mut events) = mpsc::channel(64);
    let mut stage = Supervisor {
        services: Services { programs, run, folder, devices },
        coordinator: Fleet::new(Policy::default(), sender.clone()),
        others: Fleet::new(Policy::default(), sender),
        progress,
        step: 0,
        ending: None,
        silent: false,
    };
    let outcome = tokio::select! {
        outcome = stage.run(&mut events) => outcome,
        () = stop.cancelled() => Ok(Outcome::Interrupted { step: stage.step }),
    };
    if let Ok(Outcome::Interrupted { .. }) = outcome {
        let signal = shutdown::received().map(|name| format!("{name}: ")).unwrap_or_default();
        stage.progress.say(&format!("{signal}stopping all services; another Ctrl-C kills them immediately"));
    }
    stage.clear(matches!(outcome, Ok(Outcome::Finished))).await;
    outcome
}

struct Supervisor<'a> {
    services: Services<'a>,
    coordinator: Fleet,
    others: Fleet,
    progress: &'a mut Progress,
    step: u64,
    /// The reason of an early end of the run, once requested.
    ending: Option<String>,
    /// Whether the coordinator has been reported as silent.
    silent: bool,
}

impl Supervisor<'_> {
    async fn run(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<Outcome, Error> {
        self.coordinator.start(self.services.coordinator());
        let log = self.services.folder.log("coordinator");
        let announced = match tokio::time::timeout(START_DEADLINE, self.announcement(events)).await {
            Ok(announced) => announced?,
            Err(_) => return Err(Error::NotServing { log }),
        };
        for service in self.services.others(&announced) {
            self.others.start(service);
        }
        let (run, folder) = (self.services.run, self.services.folder);
        let follow = run.network.coordinator.is_none().then(|| folder.clone());
        let credentials = folder.credentials(&run.network);
        let mut statuses = StatusStream::open(&self.services.address(&announced), credentials, follow)?;
        loop {
            tokio::select! {
                update = statuses.next() => self.show(update),
                Some(event) = events.recv() => self.tell(&event),
                left = self.others.next_end() => left?,
                left = self.coordinator.next_end() => {
                    left?;
                    let drained = self.ending.take().map(|reason| Outcome::Drained { step: self.step, reason });
                    return match drained {
                        _ if self.services.folder.is_finished() => Ok(Outcome::Finished),
                        Some(drained) => Ok(drained),
                        None => Err(Error::LeftEarly { log }),
                    };
                }
            }
        }
    }

    /// Waits for the announcement of a started coordinator. If it exits before, it is not restarted: its log contains
    /// the cause, and a restart would end the same way. A killed coordinator is restarted like every service.
    async fn announcement(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<Announcement, Error> {
        let mut own_pid = None;
        let mut unreadable = None;
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                Some(event) = events.recv() => match event {
                    Event::Started { pid, .. } => own_pid = Some(pid),
                    Event::Died { death, .. } if !death.by_signal => {
                        return Err(processes::Error::given_up(death, 1).into());
                    }
                    died @ Event::Died { .. } => {
                        own_pid = None;
                        self.tell(&died);
                    }
                },
                left = self.coordinator.next_end() => {
                    left?;
                    return Err(Error::LeftEarly { log: self.services.folder.log("coordinator") });
                }
                _ = look.tick() => {
                    // An earlier or foreign announcement is replaced once the coordinator serves.
                    let announced = self.services.folder.announcement().unwrap_or_else(|error| {
                        if unreadable.is_none() {
                            self.progress.say(&format!("waiting for the coordinator: {}", logs::describe(&error)));
                        }
                        unreadable = Some(error);
                        None
                    });
                    if let Some(announced) = announced.filter(|announced| Some(announced.pid) == own_pid) {
                        return Ok(announced);
                    }
                }
            }
        }
    }

    fn show(&mut self, update: Update) {
        let status = match update {
            Update::Status(status) => status,
            // A dead coordinator is restarted. A running one that does not answer is reported.
            Update::Away(time) => {
                if time >= SILENCE && !std::mem::replace(&mut self.silent, true) {
                    let log = self.services.folder.log("coordinator");
                    self.progress.say(&format!(
                        "warning: the coordinator has not answered for {} s; see its log {}",
                        time.as_secs(),
                        log.display()
                    ));
                }
                return;
            }
        };
        if std::mem::take(&mut self.silent) {
            self.progress.say("the coordinator answers again");
        }
        self.step = status.step;
        if status.phase() == RunPhase::Draining {
            self.ending = Some(status.ending.clone());
        }
        if self.progress.show(&status)
            && let Err(error) = report::write(self.services.folder)
        {
            self.progress.say(&format!("cannot write the report: {}", logs::describe(&error)));
        }
    }

    fn tell(&self, event: &Event) {
        if let Event::Died { death, restart_after } = event {
            let (name, how, after) = (&death.name, &death.how, restart_after.as_secs_f64());
            self.progress.say(&format!("{name} died ({how}) and is restarted in {after:.1} s"));
            if let Some(line) = processes::last_line(&death.log) {
                self.progress.say(&format!("  last line of its log: {line}"));
            }
        }
    }

    /// Stops workers and ranks first: during their shutdown they still report to the coordinator.
    async fn clear(self, run_over: bool) {
        self.others.stop(if run_over { SHUTDOWN_TIMEOUT } else { Duration::ZERO }).await;
        self.coordinator.stop(Duration::ZERO).await;
    }
}
