//! The messages to the actor.

use std::collections::BTreeMap;
use std::sync::Arc;

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::Slot;
use podium_proto::v1;
use podium_transfer::{Content, Manifest};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::error::Error;
use super::offences::Offender;
use crate::machine::sequencer::{Counts, Report};
use crate::machine::{BatchReply, Join, LeaseId, LeaseReply, Rendezvous, Verdict};
use crate::results::Results;

/// The channel for the reply to a command.
pub(super) type Sender<T> = oneshot::Sender<Result<T, Error>>;

/// The description that a worker reports of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Its device.
    pub device: String,
    /// Its host.
    pub host: String,
    /// The address of its metrics.
    pub metrics_address: String,
}

/// Checked and scored results that a worker submits.
#[derive(Debug)]
pub struct Submission {
    /// The worker.
    pub worker: Uuid,
    /// The lease, if this process granted it.
    pub lease: Option<LeaseId>,
    /// The version that sampled the results.
    pub version: PolicyVersion,
    /// The content of that version at the time of sampling.
    pub content: Content,
    /// The results.
    pub results: Results,
}

/// A submission whose caller waits for the reply.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) submission: Submission,
    pub(super) reply: Sender<Counts>,
}

/// A rank's request for its share of a step.
#[derive(Debug, Clone)]
pub struct BatchRequest {
    /// The rank.
    pub rank: u32,
    /// Its process.
    pub learner: Uuid,
    /// The step.
    pub step: Step,
    /// Versions that the rank should have published again and cannot produce.
    pub lost: Vec<PolicyVersion>,
}

/// A finished step that a rank reports.
#[derive(Debug)]
pub struct StepReport {
    /// The process of the rank.
    pub learner: Uuid,
    /// The step.
    pub step: Step,
    /// The rank's metrics by name; empty from ranks other than 0.
    pub metrics: BTreeMap<String, f64>,
    /// The step that this rank's checkpoint now continues with.
    pub checkpoint: Option<Step>,
}

/// Decision on a version that a learner offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is the first version of its number.
    New,
    /// It replaces another content that is not committed.
    Superseding(Content),
    /// It is published already, and its folder should exist.
    Published,
    /// It is published already, and its folder is no longer needed.
    Unneeded,
}

#[derive(Debug)]
pub(super) enum Command {
    Register {
        worker: Uuid,
        profile: Profile,
        reply: Sender<()>,
    },
    Lease {
        worker: Uuid,
        reply: Sender<LeaseReply>,
    },
    Submit(Waiting),
    Verdicts {
        version: PolicyVersion,
        content: Content,
        lease: Option<LeaseId>,
        slots: Vec<Slot>,
        reply: Sender<Vec<Verdict>>,
    },
    Offence {
        worker: Uuid,
        lease: Option<LeaseId>,
        cause: String,
        reply: Sender<Offender>,
    },
    Heartbeat {
        worker: Uuid,
        leases: Vec<LeaseId>,
        reply: Sender<Vec<LeaseId>>,
    },
    Disconnect {
        worker: Uuid,
        reply: Sender<()>,
    },
    Join {
        join: Join,
        reason: String,
        reply: Sender<Rendezvous>,
    },
    Batch {
        request: BatchRequest,
        reply: Sender<BatchReply>,
    },
    Commit {
        report: StepReport,
        reply: Sender<bool>,
    },
    SetAside {
        report: Report,
        reply: Sender<()>,
    },
    Fail {
        learner: Uuid,
        kind: &'static str,
        reason: String,
        reply: Sender<()>,
    },
    Alive {
        learner: Uuid,
        reply: Sender<()>,
    },
    Offer {
        learner: Uuid,
        manifest: Box<Manifest>,
        reply: Sender<Offer>,
    },
    Publish {
        learner: Uuid,
        manifest: Box<Manifest>,
        reply: Sender<()>,
    },
    Status {
        reply: Sender<v1::RunStatus>,
    },
    Drain {
        reason: String,
        reply: Sender<()>,
    },
}

impl Command {
    /// Returns whether the command may be handled before these submissions, which were received before it, or together
    /// with them: it writes nothing else, and no submission before it is of the same worker.
    pub(super) fn may_overtake(&self, submissions: &[Waiting]) -> bool {
        match self {
            Self::Lease { worker, .. } | Self::Heartbeat { worker, .. } => {
                submissions.iter().all(|waiting| waiting.submission.worker != *worker)
            }
            Self::Submit(_) | Self::Verdicts { .. } | Self::Alive { .. } | Self::Status { .. } => true,
            _ => submissions.is_empty(),
        }
    }

    /// Fails a command that waited for a step that could not be closed. Other commands never wait.
    pub(super) fn fail(self, step: Step, source: Arc<Error>) {
        let error = Error::Close { step, source };
        match self {
            Self::Batch { reply, .. } => drop(reply.send(Err(error))),
            Self::Commit { reply, .. } => drop(reply.send(Err(error))),
            Self::SetAside { reply, .. } | Self::Publish { reply, .. } => drop(reply.send(Err(error))),
            Self::Offer { reply, .. } => drop(reply.send(Err(error))),
            _ => {}
        }
    }
}
