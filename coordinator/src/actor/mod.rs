//! The coordinator as an actor: one task owns the machine, and everybody else talks to it through a [`Handle`].
//!
//! What must be durable is in the store before the machine hears of it and before anybody is answered. Heavy work on
//! the way (grading, prompts, files of policies) is done by callers and by blocking threads, not here.

mod closing;
mod concerns;
mod offences;
mod outlook;
mod progress;
mod state;
mod surroundings;
mod versions;

use std::collections::BTreeMap;
use std::time::Duration;

use podium_grpo::{GroupId, PolicyVersion, Step};
use podium_proto::v1;
use podium_transfer::{Content, Manifest};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::machine::{self, Join, LeaseId, Standing};
use crate::policies;
use crate::store::{self, Results};
pub use offences::{Offender, Report, Unusable};
pub use state::{Outcome, Parts, start};
pub use versions::Offer;

/// Commands that wait for the actor at most.
const MAILBOX: usize = 256;

/// How long an answer of the actor is waited for: it writes to disk, and is otherwise quick.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the actor did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run's rules say no.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A policy version could not be kept.
    #[error(transparent)]
    Policy(#[from] policies::Error),
    /// A prompt could not be made.
    #[error("cannot make the prompts of a step or an evaluation: {0}")]
    Task(#[from] podium_recsys::task::Error),
    /// What the store holds of a group does not hold together.
    #[error("a stored group does not hold together: {0}")]
    Group(#[from] podium_proto::convert::Error),
    /// A slot was sampled again too often.
    #[error(
        "the run ends, since {group} was set aside {times} times: {history}; find out why these workers sample groups that \
         cannot be trained on, then run the same command again"
    )]
    Spent {
        /// The last group of the slot.
        group: GroupId,
        /// How often since this process started.
        times: u32,
        /// Workers and causes.
        history: String,
    },
    /// The files for people could not be written.
    #[error(transparent)]
    Report(#[from] podium_files::durable::Error),
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
    /// The actor has not answered for a minute.
    #[error("the coordinator did not {what} within {} s: its disk may be too slow", PATIENCE.as_secs())]
    Busy {
        /// What it was asked to do.
        what: &'static str,
    },
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Its device.
    pub device: String,
    /// Its host.
    pub host: String,
    /// Where its metrics are.
    pub metrics_address: String,
}

/// An answer to a worker that wants work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// Here it is.
    Lease(machine::Lease),
    /// Nothing now.
    Idle,
    /// Leave.
    Over(String),
}

/// An answer to a rank that wants its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchAnswer {
    /// The step's groups can be read.
    Ready {
        /// Among how many ranks they are shared.
        world_size: u32,
    },
    /// Not all of them are there.
    NotReady,
    /// Join first.
    Rejoin,
    /// Publish a version again first.
    Republish {
        /// Which.
        version: PolicyVersion,
        /// The first step whose groups are there.
        first_step: Step,
    },
    /// Leave.
    Over(String),
}

/// Results on their way into slots.
#[derive(Debug)]
pub struct Submission {
    /// Who hands them in.
    pub worker: Uuid,
    /// The lease, if this process gave it out.
    pub lease: Option<LeaseId>,
    /// The version that sampled.
    pub version: PolicyVersion,
    /// Its content when it did.
    pub content: Content,
    /// Checked and scored.
    pub results: Results,
}

/// A rank that asks for its share of a step.
#[derive(Debug, Clone)]
pub struct BatchWanted {
    /// Its rank.
    pub rank: u32,
    /// Its process.
    pub learner: Uuid,
    /// The step.
    pub step: Step,
    /// Versions that it was asked to publish again and cannot make.
    pub lost: Vec<PolicyVersion>,
}

/// What became of a submission's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Filled a slot.
    pub accepted: u32,
    /// Of slots that were filled already.
    pub repeated: u32,
    /// Of slots that want another version, or do not exist.
    pub refused: u32,
}

/// A finished step, as a rank reports it.
#[derive(Debug)]
pub struct Commit {
    /// Who.
    pub learner: Uuid,
    /// Which step.
    pub step: Step,
    /// Its figures by name; empty from ranks other than 0.
    pub figures: BTreeMap<String, f64>,
    /// The step that a checkpoint of this rank now continues with.
    pub checkpoint: Option<Step>,
}

#[derive(Debug)]
enum Command {
    Register { worker: Uuid, profile: Profile, reply: Reply<()> },
    Lease { worker: Uuid, reply: Reply<LeaseAnswer> },
    Submit { submission: Submission, reply: Reply<Counts> },
    Offended { worker: Uuid, lease: Option<LeaseId>, cause: String, reply: Reply<Offender> },
    Heartbeat { worker: Uuid, leases: Vec<LeaseId>, reply: Reply<Vec<LeaseId>> },
    Leave { worker: Uuid, reply: Reply<()> },
    Join { join: Join, reason: String, reply: Reply<Standing> },
    Batch { wanted: BatchWanted, reply: Reply<BatchAnswer> },
    Commit { commit: Commit, reply: Reply<bool> },
    SetAside { report: Report, reply: Reply<()> },
    Fail { learner: Uuid, kind: &'static str, reason: String, reply: Reply<()> },
    Alive { learner: Uuid, reply: Reply<()> },
    Offer { learner: Uuid, manifest: Box<Manifest>, reply: Reply<Offer> },
    Published { learner: Uuid, manifest: Box<Manifest>, reply: Reply<()> },
    Status { reply: Reply<v1::RunStatus> },
    Drain { reason: String, reply: Reply<()> },
}

/// The way to the actor. Clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    mailbox: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
}

impl Handle {
    /// A watch that changes whenever those who wait for work, a batch or a rank should ask again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Takes a worker of this run in.
    pub async fn register(&self, worker: Uuid, profile: Profile) -> Result<(), Error> {
        self.ask("register a worker", |reply| Command::Register { worker, profile, reply }).await
    }

    /// Asks for work once.
    pub async fn lease(&self, worker: Uuid) -> Result<LeaseAnswer, Error> {
        self.ask("find work", |reply| Command::Lease { worker, reply }).await
    }

    /// Hands results in. Those that were wanted are durable on return.
    pub async fn submit(&self, submission: Submission) -> Result<Counts, Error> {
        self.ask("keep results", |reply| Command::Submit { submission, reply }).await
    }

    /// Notes that a worker's results cannot be used and frees their lease.
    pub async fn offended(
        &self,
        worker: Uuid,
        lease: Option<LeaseId>,
        cause: String,
    ) -> Result<Offender, Error> {
        self.ask("note an offence", |reply| Command::Offended { worker, lease, cause, reply }).await
    }

    /// Keeps a worker and its leases alive; returns those that are not its any more.
    pub async fn heartbeat(&self, worker: Uuid, leases: Vec<LeaseId>) -> Result<Vec<LeaseId>, Error> {
        self.ask("note a heartbeat", |reply| Command::Heartbeat { worker, leases, reply }).await
    }

    /// Lets a worker go.
    pub async fn leave(&self, worker: Uuid) -> Result<(), Error> {
        self.ask("let a worker go", |reply| Command::Leave { worker, reply }).await
    }

    /// Takes a rank in.
    pub async fn join(&self, join: Join, reason: String) -> Result<Standing, Error> {
        self.ask("take a rank in", |reply| Command::Join { join, reason, reply }).await
    }

    /// Asks once whether a rank can have its share of a step.
    pub async fn batch(&self, wanted: BatchWanted) -> Result<BatchAnswer, Error> {
        self.ask("find a batch", |reply| Command::Batch { wanted, reply }).await
    }

    /// Commits a step; `true` if the rank can leave now.
    pub async fn commit(&self, commit: Commit) -> Result<bool, Error> {
        self.ask("commit a step", |reply| Command::Commit { commit, reply }).await
    }

    /// Sets groups aside that a rank cannot train on. Their causes are durable on return, and their slots open again.
    pub async fn set_aside(&self, report: Report) -> Result<(), Error> {
        self.ask("set groups aside", |reply| Command::SetAside { report, reply }).await
    }

    /// Notes why a rank ends before its time; `kind`: the failure's name among metrics.
    pub async fn fail(&self, learner: Uuid, kind: &'static str, reason: String) -> Result<(), Error> {
        self.ask("note a failure", |reply| Command::Fail { learner, kind, reason, reply }).await
    }

    /// Notes that a rank is alive.
    pub async fn alive(&self, learner: Uuid) -> Result<(), Error> {
        self.ask("note that a rank is alive", |reply| Command::Alive { learner, reply }).await
    }

    /// Asks what becomes of a version that a learner offers.
    pub async fn offer(&self, learner: Uuid, manifest: Manifest) -> Result<Offer, Error> {
        let manifest = Box::new(manifest);
        self.ask("check a policy version", |reply| Command::Offer { learner, manifest, reply }).await
    }

    /// Notes a version whose folder is whole.
    pub async fn published(&self, learner: Uuid, manifest: Manifest) -> Result<(), Error> {
        let manifest = Box::new(manifest);
        self.ask("note a policy version", |reply| Command::Published { learner, manifest, reply }).await
    }

    /// How the run stands.
    pub async fn status(&self) -> Result<v1::RunStatus, Error> {
        self.ask("tell the status", |reply| Command::Status { reply }).await
    }

    /// Ends the run early.
    pub async fn drain(&self, reason: String) -> Result<(), Error> {
        self.ask("drain the run", |reply| Command::Drain { reason, reply }).await
    }

    async fn ask<T>(
        &self,
        what: &'static str,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.mailbox.send(command(reply)).await.map_err(|_| Error::Stopping)?;
            answer.await.map_err(|_| Error::Stopping)?
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(Err(Error::Busy { what }))
    }
}

/// Runs work that blocks on a thread made for it.
pub(crate) async fn blocking<T: Send + 'static, E: From<Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Stopping.into()),
    }
}
