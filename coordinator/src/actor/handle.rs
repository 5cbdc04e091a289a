//! The handle for calls to the actor.

use podium_grpo::PolicyVersion;
use podium_proto::convert::Slot;
use podium_proto::v1;
use podium_transfer::{Content, Manifest};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::command::{BatchRequest, Command, Offer, Profile, Sender, StepReport, Submission, Waiting};
use super::error::{Error, REPLY_TIMEOUT};
use super::offences::Offender;
use crate::machine::sequencer::{Counts, Report};
use crate::machine::{BatchReply, Join, LeaseId, LeaseReply, Rendezvous, Verdict};

/// A handle for calls to the actor. All clones call the same actor.
#[derive(Debug, Clone)]
pub struct Handle {
    mailbox: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
}

impl Handle {
    pub(super) const fn new(mailbox: mpsc::Sender<Command>, changes: watch::Receiver<u64>) -> Self {
        Self { mailbox, changes }
    }

    /// Returns a watch that changes whenever callers that wait for work, a batch or a rank should repeat their
    /// request.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Registers a worker of this run.
    pub async fn register(&self, worker: Uuid, profile: Profile) -> Result<(), Error> {
        self.ask("register a worker", |reply| Command::Register { worker, profile, reply }).await
    }

    /// Requests a lease once.
    pub async fn lease(&self, worker: Uuid) -> Result<LeaseReply, Error> {
        self.ask("grant a lease", |reply| Command::Lease { worker, reply }).await
    }

    /// Returns the verdicts on results of slots that this version, with this content, sampled under a lease.
    pub async fn verdicts(
        &self,
        version: PolicyVersion,
        content: Content,
        lease: Option<LeaseId>,
        slots: Vec<Slot>,
    ) -> Result<Vec<Verdict>, Error> {
        let command = |reply| Command::Verdicts { version, content, lease, slots, reply };
        self.ask("check which results are wanted", command).await
    }

    /// Submits results. Wanted results are durable on return.
    pub async fn submit(&self, submission: Submission) -> Result<Counts, Error> {
        self.ask("store results", |reply| Command::Submit(Waiting { submission, reply })).await
    }

    /// Counts an offence of a worker whose results are unusable, and frees their lease.
    pub async fn record_offence(
        &self,
        worker: Uuid,
        lease: Option<LeaseId>,
        cause: String,
    ) -> Result<Offender, Error> {
        self.ask("record an offence", |reply| Command::Offence { worker, lease, cause, reply }).await
    }

    /// Renews the leases of a worker; returns those that it no longer holds.
    pub async fn heartbeat(&self, worker: Uuid, leases: Vec<LeaseId>) -> Result<Vec<LeaseId>, Error> {
        self.ask("take a heartbeat", |reply| Command::Heartbeat { worker, leases, reply }).await
    }

    /// Removes a worker that disconnects.
    pub async fn disconnect(&self, worker: Uuid) -> Result<(), Error> {
        self.ask("disconnect a worker", |reply| Command::Disconnect { worker, reply }).await
    }

    /// Adds a rank to the rank group; `reason`: the reason why it joins again, if it does.
    pub async fn join(&self, join: Join, reason: String) -> Result<Rendezvous, Error> {
        self.ask("let a rank join", |reply| Command::Join { join, reason, reply }).await
    }

    /// Requests once a rank's share of a step.
    pub async fn batch(&self, request: BatchRequest) -> Result<BatchReply, Error> {
        self.ask("find a batch", |reply| Command::Batch { request, reply }).await
    }

    /// Commits a step; returns `true` if the run is over for the rank.
    pub async fn commit(&self, report: StepReport) -> Result<bool, Error> {
        self.ask("commit a step", |reply| Command::Commit { report, reply }).await
    }

    /// Sets groups aside that a rank cannot train on. On return their causes are durable and their slots are
    /// open again.
    pub async fn set_aside(&self, report: Report) -> Result<(), Error> {
        self.ask("set groups aside", |reply| Command::SetAside { report, reply }).await
    }

    /// Records why a rank failed; `kind`: the name of the failure in metrics.
    pub async fn fail(&self, learner: Uuid, kind: &'static str, reason: String) -> Result<(), Error> {
        self.ask("note a failure", |reply| Command::Fail { learner, kind, reason, reply }).await
    }

    /// Records that a rank is alive.
    pub async fn alive(&self, learner: Uuid) -> Result<(), Error> {
        self.ask("note that a rank is alive", |reply| Command::Alive { learner, reply }).await
    }

    /// Requests the decision on a version that a learner offers.
    pub async fn offer(&self, learner: Uuid, manifest: Manifest) -> Result<Offer, Error> {
        let manifest = Box::new(manifest);
        self.ask("check a policy version", |reply| Command::Offer { learner, manifest, reply }).await
    }

    /// Publishes a version whose folder is complete.
    pub async fn publish(&self, learner: Uuid, manifest: Manifest) -> Result<(), Error> {
        let manifest = Box::new(manifest);
        self.ask("publish a policy version", |reply| Command::Publish { learner, manifest, reply }).await
    }

    /// Returns the status of the run.
    pub async fn status(&self) -> Result<v1::RunStatus, Error> {
        self.ask("report the status", |reply| Command::Status { reply }).await
    }

    /// Ends the run early.
    pub async fn drain(&self, reason: String) -> Result<(), Error> {
        self.ask("drain the run", |reply| Command::Drain { reason, reply }).await
    }

    async fn ask<T>(
        &self,
        what: &'static str,
        command: impl FnOnce(Sender<T>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.mailbox.send(command(reply)).await.map_err(|_| Error::Stopping)?;
            answer.await.map_err(|_| Error::Stopping)?
        };
        tokio::time::timeout(REPLY_TIMEOUT, exchange).await.unwrap_or(Err(Error::Busy { what }))
    }
}
