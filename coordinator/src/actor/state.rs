//! The actor's own side: the machine, and what its actions lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use podium_grpo::PolicyVersion;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::offences::Offences;
use super::{Command, Error, Handle, LeaseAnswer, MAILBOX, Profile, blocking};
use crate::curriculum::Curriculum;
use crate::discovery::Discovery;
use crate::identity::Identity;
use crate::machine::{Action, Event, Machine, Millis, Standing};
use crate::metrics;
use crate::policies::Policies;
use crate::reports::Reports;
use crate::reports::answers::Answers;
use crate::reports::forms::Forms;
use crate::reports::recording::Recording;
use crate::reports::summary::Baselines;
use crate::reports::watch::{Findings, Watch};
use crate::scaling::{Advice, Load};
use crate::store::Store;

/// How often time is looked at, and with it deadlines.
const TICK: Duration = Duration::from_millis(200);

/// What the actor works with.
#[derive(Debug)]
pub struct Parts {
    /// Which run this is.
    pub identity: Identity,
    /// The run as far as it got.
    pub machine: Machine,
    /// Where it is kept.
    pub store: Arc<Store>,
    /// Prompts and scores.
    pub curriculum: Arc<Curriculum>,
    /// The policy versions.
    pub policies: Arc<Policies>,
    /// Whether the ranking follows the reward.
    pub watch: Watch,
    /// What the run is measured against.
    pub baselines: Baselines,
    /// Where the groups of its steps are recorded, if they are.
    pub recording: Option<Arc<Recording>>,
    /// Where held-out answers are recorded, if they are.
    pub answers: Option<Answers>,
    /// Which processes can be scraped.
    pub discovery: Discovery,
    /// The output folder.
    pub out: std::path::PathBuf,
}

/// How the actor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps and evaluations are done.
    Complete,
    /// The run was ended early.
    Drained {
        /// At whose request, and why.
        reason: String,
    },
    /// The process was told to stop; a restart continues.
    Stopped,
}

pub(super) struct State {
    pub(super) parts: Parts,
    pub(super) reports: Reports,
    pub(super) started: Instant,
    pub(super) last_commit: Instant,
    pub(super) over_since: Option<Instant>,
    pub(super) retry_at: Option<Instant>,
    /// Whether any worker or rank has spoken to this process.
    pub(super) met_somebody: bool,
    pub(super) profiles: BTreeMap<Uuid, Profile>,
    /// Evaluations that are answered and not yet closed.
    pub(super) to_close: BTreeSet<PolicyVersion>,
    pub(super) reports_behind: bool,
    pub(super) finish_wanted: bool,
    pub(super) trouble: Option<String>,
    /// Why ranks joined again or ended since the last step, by rank: a line for people.
    pub(super) rank_trouble: BTreeMap<u32, String>,
    /// Workers whose results could not be used.
    pub(super) offences: Offences,
    /// What was wrong with ranks and leases at the last look.
    pub(super) concerns: BTreeSet<String>,
    pub(super) last_step: BTreeMap<String, f64>,
    pub(super) last_evaluation: Option<(PolicyVersion, BTreeMap<String, f64>)>,
    pub(super) findings: Findings,
    /// Needed policy versions that cannot be served, and why.
    pub(super) missing: BTreeMap<PolicyVersion, String>,
    /// Evaluations that were given up, and why.
    pub(super) lost: BTreeMap<PolicyVersion, String>,
    /// An inspection of the needed versions that is under way.
    pub(super) inspection: Option<tokio::task::JoinHandle<BTreeMap<PolicyVersion, String>>>,
    /// When the last one began.
    pub(super) inspected: Instant,
    /// Whether any completion of the run was well-formed.
    pub(super) forms: Forms,
    /// Whether rank 0 waits for groups.
    pub(super) learner_waits: bool,
    pub(super) load: Load,
    pub(super) load_noted: Instant,
    pub(super) advice: Option<Advice>,
    pub(super) changes: watch::Sender<u64>,
}

/// Starts the actor; it ends by itself when the run is over and everybody has left, or when `stop` is cancelled.
pub fn start(parts: Parts, stop: CancellationToken) -> (Handle, tokio::task::JoinHandle<Outcome>) {
    let (mailbox, commands) = mpsc::channel(MAILBOX);
    let (changes, watched) = watch::channel(0);
    let now = Instant::now();
    let state = State {
        reports: Reports::new(&parts.out),
        parts,
        started: now,
        last_commit: now,
        over_since: None,
        retry_at: None,
        met_somebody: false,
        profiles: BTreeMap::new(),
        to_close: BTreeSet::new(),
        reports_behind: true,
        finish_wanted: false,
        trouble: None,
        rank_trouble: BTreeMap::new(),
        offences: Offences::default(),
        concerns: BTreeSet::new(),
        last_step: BTreeMap::new(),
        last_evaluation: None,
        findings: Findings::default(),
        missing: BTreeMap::new(),
        lost: BTreeMap::new(),
        inspection: None,
        inspected: now,
        forms: Forms::default(),
        learner_waits: true,
        load: Load::default(),
        load_noted: now,
        advice: None,
        changes,
    };
    let actor = tokio::spawn(state.run(commands, stop));
    (Handle { mailbox, changes: watched }, actor)
}

impl State {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) -> Outcome {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.look_at_versions().await;
        self.list_processes();
        metrics::started(self.parts.machine.waiting_groups());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Outcome::Stopped,
                command = commands.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => return Outcome::Stopped,
                },
                _ = ticks.tick() => {
                    self.step(Event::Tick).await;
                    self.inspect_versions().await;
                    self.catch_up().await;
                    self.look_around();
                    self.look_for_concerns();
                    if let Some(outcome) = self.outcome() {
                        return outcome;
                    }
                }
            }
        }
    }

    pub(super) fn now(&self) -> Millis {
        Millis(self.started.elapsed().as_millis() as u64)
    }

    /// Lets the machine take an event, does what follows, and returns its first action: the answer.
    pub(super) async fn step(&mut self, event: Event) -> Option<Action> {
        self.note_load();
        let actions = self.parts.machine.step(self.now(), event);
        for action in &actions {
            self.perform(action).await;
        }
        actions.into_iter().next()
    }

    async fn perform(&mut self, action: &Action) {
        match action {
            Action::Wake => self.changes.send_modify(|count| *count += 1),
            Action::Grant(_) => metrics::lease_granted(),
            Action::LeaseExpired(_) => {
                metrics::lease_expired();
                tracing::warn!("a lease was not kept alive: its prompts go to another worker");
            }
            Action::WorkerLost(worker) => {
                metrics::worker_lost();
                self.profiles.remove(worker);
                self.list_processes();
                tracing::warn!("worker {worker} has fallen silent");
            }
            Action::KeepWorld => {
                let (store, world) = (self.parts.store.clone(), self.parts.machine.world().clone());
                tracing::info!("all {} learner ranks are there", world.size());
                let kept = self.write(move || Ok(store.put_world(&world)?)).await;
                // Not fatal: after a restart of the coordinator the ranks would join once more.
                self.note(kept.err());
            }
            Action::EvaluationComplete(version) | Action::EvaluationLost(version) => {
                self.to_close.insert(*version);
                self.retry_at = None;
            }
            Action::DropGroups { before } => {
                let (store, before) = (self.parts.store.clone(), *before);
                let dropped = self.write(move || Ok(store.drop_groups(before)?)).await;
                self.note(dropped.err());
            }
            Action::RunComplete => self.finish_wanted = true,
            Action::Wait
            | Action::Leave { .. }
            | Action::Lost(_)
            | Action::Standing(_)
            | Action::ServeBatch
            | Action::Rejoin
            | Action::Republish { .. }
            | Action::Refuse(_) => {}
        }
    }

    async fn handle(&mut self, command: Command) {
        // Whoever asked may have hung up: then nobody misses the answer.
        match command {
            Command::Register { worker, profile, reply } => {
                self.met_somebody = true;
                tracing::info!("worker {worker} on {} ({}) registers", profile.host, profile.device);
                self.profiles.insert(worker, profile);
                self.step(Event::WorkerRegistered { worker }).await;
                self.list_processes();
                self.changes.send_modify(|count| *count += 1);
                drop(reply.send(Ok(())));
            }
            Command::Lease { worker, reply } => {
                drop(reply.send(match self.step(Event::LeaseWanted { worker }).await {
                    Some(Action::Grant(lease)) => Ok(LeaseAnswer::Lease(lease)),
                    Some(Action::Leave { reason }) => Ok(LeaseAnswer::Over(reason)),
                    Some(Action::Refuse(error)) => Err(error.into()),
                    _ => Ok(LeaseAnswer::Idle),
                }));
            }
            Command::Submit { submission, reply } => drop(reply.send(self.submit(submission).await)),
            Command::Offended { worker, lease, cause, reply } => {
                drop(reply.send(Ok(self.offended(worker, lease, &cause).await)));
            }
            Command::Heartbeat { worker, leases, reply } => {
                drop(reply.send(match self.step(Event::Heartbeat { worker, leases }).await {
                    Some(Action::Refuse(error)) => Err(error.into()),
                    Some(Action::Lost(leases)) => Ok(leases),
                    _ => Ok(Vec::new()),
                }));
            }
            Command::Leave { worker, reply } => {
                tracing::info!("worker {worker} leaves");
                self.profiles.remove(&worker);
                self.step(Event::WorkerLeft { worker }).await;
                self.list_processes();
                drop(reply.send(Ok(())));
            }
            Command::Join { join, reason, reply } => {
                self.met_somebody = true;
                if !reason.is_empty() {
                    self.note_rank(join.rank, format!("rank {} joins again: {reason}", join.rank));
                }
                let answer = self.step(Event::RankJoined(join)).await;
                self.list_processes();
                drop(reply.send(match answer {
                    Some(Action::Standing(standing)) => Ok(standing),
                    Some(Action::Refuse(error)) => Err(error.into()),
                    _ => Ok(Standing::default()),
                }));
            }
            Command::Batch { wanted, reply } => drop(reply.send(self.batch(wanted).await)),
            Command::Commit { commit, reply } => drop(reply.send(self.commit(commit).await)),
            Command::SetAside { report, reply } => drop(reply.send(self.set_aside(report).await)),
            Command::Fail { learner, kind, reason, reply } => {
                metrics::rank_failed(kind);
                if let Some(rank) = self.parts.machine.rank_of(learner) {
                    self.note_rank(rank, format!("rank {rank} ended: {reason}"));
                } else {
                    tracing::warn!("a learner that is no rank ended: {reason}");
                }
                drop(reply.send(Ok(())));
            }
            Command::Alive { learner, reply } => {
                self.step(Event::RankAlive { learner }).await;
                drop(reply.send(Ok(())));
            }
            Command::Offer { learner, manifest, reply } => {
                drop(reply.send(self.offer(learner, &manifest)));
            }
            Command::Published { learner, manifest, reply } => {
                drop(reply.send(self.published(learner, *manifest).await));
            }
            Command::Status { reply } => drop(reply.send(Ok(self.status()))),
            Command::Drain { reason, reply } => {
                tracing::info!("the run ends early: {reason}");
                self.step(Event::DrainWanted { reason }).await;
                drop(reply.send(Ok(())));
            }
        }
    }

    pub(super) async fn write<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let result = blocking(work).await;
        metrics::store_write(began.elapsed(), result.is_ok());
        self.trouble = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// Keeps a line about a rank until the next step is committed, and logs it if it is new.
    fn note_rank(&mut self, rank: u32, line: String) {
        if self.rank_trouble.get(&rank) != Some(&line) {
            tracing::warn!("{line}");
            self.rank_trouble.insert(rank, line);
        }
    }

    pub(super) fn note(&mut self, error: Option<impl std::fmt::Display>) {
        if let Some(error) = error {
            tracing::error!("{error}");
            self.trouble = Some(error.to_string());
        }
    }
}
