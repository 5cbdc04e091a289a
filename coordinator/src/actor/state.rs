//! The actor's own side: the machine, and what its actions lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use podium_grpo::{GroupId, PolicyVersion, Step};
use podium_proto::convert::Slot;
use podium_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::closing::{self, Finished};
use super::{
    BatchAnswer, Command, Commit, Counts, Error, Handle, LeaseAnswer, MAILBOX, Profile, Submission, blocking,
};
use crate::curriculum::Curriculum;
use crate::identity::Identity;
use crate::machine::{Action, Event, Machine, Millis, Phase, Standing, Verdict};
use crate::metrics;
use crate::policies::Policies;
use crate::reports::summary::{self, Baselines};
use crate::reports::{Contents, Reports, evaluation, step};
use crate::store::{EvaluationRecord, Results, Store};

/// How often time is looked at, and with it deadlines.
const TICK: Duration = Duration::from_millis(200);
/// How long everybody has to hear that the run is complete.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long after a failure of the disk what is left to do is tried again.
const RETRY: Duration = Duration::from_secs(5);

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
    /// What the run is measured against.
    pub baselines: Baselines,
    /// The output folder.
    pub out: std::path::PathBuf,
}

/// How the actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps and evaluations are done.
    Complete,
    /// Somebody asked to end early.
    Drained,
    /// The process was told to stop; a restart continues.
    Stopped,
}

struct State {
    parts: Parts,
    reports: Reports,
    started: Instant,
    last_commit: Instant,
    over_since: Option<Instant>,
    retry_at: Option<Instant>,
    /// Whether any worker or rank has spoken to this process.
    met_somebody: bool,
    profiles: BTreeMap<Uuid, Profile>,
    /// Evaluations that are answered and not yet closed.
    to_close: BTreeSet<PolicyVersion>,
    reports_behind: bool,
    finish_wanted: bool,
    trouble: Option<String>,
    last_step: BTreeMap<String, f64>,
    last_evaluation: Option<(PolicyVersion, BTreeMap<String, f64>)>,
    changes: watch::Sender<u64>,
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
        last_step: BTreeMap::new(),
        last_evaluation: None,
        changes,
    };
    let actor = tokio::spawn(state.run(commands, stop));
    (Handle { mailbox, changes: watched }, actor)
}

impl State {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) -> Outcome {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Outcome::Stopped,
                command = commands.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => return Outcome::Stopped,
                },
                _ = ticks.tick() => {
                    self.step(Event::Tick).await;
                    self.catch_up().await;
                    metrics::standing(&self.parts.machine, self.now());
                    if let Some(outcome) = self.outcome() {
                        return outcome;
                    }
                }
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(self.started.elapsed().as_millis() as u64)
    }

    /// Lets the machine take an event, does what follows, and returns its first action: the answer.
    async fn step(&mut self, event: Event) -> Option<Action> {
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
                tracing::warn!("worker {worker} has fallen silent");
            }
            Action::KeepWorld => {
                let (store, world) = (self.parts.store.clone(), self.parts.machine.world().clone());
                tracing::info!("all {} learner ranks are there", world.size());
                let kept = self.write(move || Ok(store.put_world(&world)?)).await;
                // Not fatal: after a restart of the coordinator the ranks would join once more.
                self.note(kept.err());
            }
            Action::EvaluationComplete(version) => {
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
                drop(reply.send(Ok(())));
            }
            Command::Join { join, reply } => {
                self.met_somebody = true;
                drop(reply.send(match self.step(Event::RankJoined(join)).await {
                    Some(Action::Standing(standing)) => Ok(standing),
                    Some(Action::Refuse(error)) => Err(error.into()),
                    _ => Ok(Standing { complete: false, address: String::new(), generation: 0 }),
                }));
            }
            Command::Batch { rank, learner, step, reply } => {
                drop(reply.send(self.batch(rank, learner, step).await));
            }
            Command::Commit { commit, reply } => drop(reply.send(self.commit(commit).await)),
            Command::CheckPublish { version, reply } => {
                drop(reply.send(self.parts.machine.check_publish(version).map_err(Error::from)));
            }
            Command::Published { manifest, reply } => {
                let (store, version) = (self.parts.store.clone(), manifest.version);
                let message = v1::PolicyManifest::from(&*manifest);
                let kept = self.write(move || Ok(store.put_policy(&message)?)).await;
                if kept.is_ok() {
                    self.parts.policies.add(*manifest);
                    self.step(Event::VersionPublished { version }).await;
                }
                drop(reply.send(kept));
            }
            Command::Status { reply } => drop(reply.send(Ok(self.status()))),
            Command::Drain { reason, reply } => {
                tracing::info!("the run ends early: {reason}");
                self.step(Event::DrainWanted { reason }).await;
                drop(reply.send(Ok(())));
            }
        }
    }

    async fn submit(&mut self, submission: Submission) -> Result<Counts, Error> {
        let Submission { worker, lease, version, results } = submission;
        if !self.parts.machine.knows(worker) {
            return Err(crate::machine::Error::UnknownWorker { worker }.into());
        }
        let mut counts = [Counts::default(); 2];
        let mut slots = BTreeSet::new();
        let mut wanted = |slot: Slot, training: bool| {
            let counts = &mut counts[usize::from(training)];
            match self.parts.machine.verdict(slot, version) {
                // A message may name a slot twice.
                Verdict::Wanted if slots.insert(slot) => {
                    counts.accepted += 1;
                    return true;
                }
                Verdict::Wanted | Verdict::Repeated => counts.repeated += 1,
                Verdict::Refused => counts.refused += 1,
            }
            false
        };
        let Results { mut groups, mut answers } = results;
        groups.retain(|group| wanted(slot_of(group), true));
        answers.retain(|&(version, index, _)| wanted(Slot::Evaluation { version, index }, false));
        let (completions, tokens) = closing::volume(&groups);
        let kept = Results { groups, answers };
        if !kept.is_empty() {
            let store = self.parts.store.clone();
            self.write(move || Ok(store.put_results(&kept)?)).await?;
        }
        let slots = slots.into_iter().collect();
        self.step(Event::Scored { worker, lease, slots }).await;
        let [evaluation, training] = counts;
        metrics::submitted(true, training.accepted, training.repeated, training.refused);
        metrics::submitted(false, evaluation.accepted, evaluation.repeated, evaluation.refused);
        metrics::completions(completions, tokens);
        Ok(Counts {
            accepted: training.accepted + evaluation.accepted,
            repeated: training.repeated + evaluation.repeated,
            refused: training.refused + evaluation.refused,
        })
    }

    async fn batch(&mut self, rank: u32, learner: Uuid, step: Step) -> Result<BatchAnswer, Error> {
        self.met_somebody = true;
        if let Some(missed) = self.parts.machine.missed_commit(rank, learner, step) {
            tracing::info!("{missed} was finished before its report was lost: it is committed now");
            self.close_step(missed, None).await?;
        }
        match self.step(Event::BatchWanted { rank, learner, step }).await {
            Some(Action::ServeBatch) => {
                Ok(BatchAnswer::Ready { world_size: self.parts.machine.world().size() })
            }
            Some(Action::Rejoin) => Ok(BatchAnswer::Rejoin),
            Some(Action::Leave { reason }) => Ok(BatchAnswer::Over(reason)),
            Some(Action::Refuse(error)) => Err(error.into()),
            _ => Ok(BatchAnswer::NotReady),
        }
    }

    async fn commit(&mut self, commit: Commit) -> Result<bool, Error> {
        let Commit { learner, step, figures, checkpoint } = commit;
        let (rank, fresh) = self.parts.machine.check_commit(learner, step)?;
        if fresh {
            self.close_step(step, Some(figures)).await?;
        } else if rank == 0 {
            let store = self.parts.store.clone();
            let late = self.write(move || closing::add_report(&store, step, &figures)).await?;
            self.reports_behind |= late.is_some();
        }
        if let Some(step) = checkpoint {
            let store = self.parts.store.clone();
            self.write(move || Ok(store.put_checkpoint(rank, step)?)).await?;
            self.step(Event::CheckpointKept { rank, step }).await;
        }
        let last = step.next().0 >= self.parts.machine.plan().steps;
        let over = last || self.parts.machine.over().is_some();
        if over {
            self.step(Event::RankTold { rank }).await;
        }
        Ok(over)
    }

    async fn close_step(&mut self, step: Step, figures: Option<BTreeMap<String, f64>>) -> Result<(), Error> {
        let (store, curriculum) = (self.parts.store.clone(), self.parts.curriculum.clone());
        let seconds = self.last_commit.elapsed().as_secs_f64();
        let plan = self.parts.machine.plan().clone();
        let finished = Finished { step, figures, seconds, steps: plan.steps };
        let record = self.write(move || closing::close_step(&store, &curriculum, finished)).await?;
        self.last_commit = Instant::now();
        self.step(Event::StepCommitted { step }).await;
        self.last_step = step::numbers(&record.row);
        metrics::step_committed(plan.prompts_per_step, seconds, &self.last_step);
        let added = self.reports.add_step(&record);
        self.reports_behind |= added.is_err();
        self.note(added.err());
        let (policies, latest) = (self.parts.policies.clone(), self.parts.machine.latest());
        let pruned: Result<(), Error> = blocking(move || Ok(policies.prune(&plan, latest)?)).await;
        self.note(pruned.err());
        Ok(())
    }

    /// Does what an earlier failure, or the start, has left to be done.
    async fn catch_up(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        if let Err(error) = self.try_to_catch_up().await {
            self.retry_at = Some(Instant::now() + RETRY);
            self.note(Some(error));
        }
    }

    async fn try_to_catch_up(&mut self) -> Result<(), Error> {
        while let Some(&version) = self.to_close.first() {
            let (store, curriculum) = (self.parts.store.clone(), self.parts.curriculum.clone());
            let record = self.write(move || closing::close_evaluation(&store, &curriculum, version)).await?;
            self.to_close.remove(&version);
            self.show_evaluation(version, &record);
            let added = self.reports.add_evaluation(&record);
            self.reports_behind |= added.is_err();
            added?;
        }
        if self.reports_behind {
            let store = self.parts.store.clone();
            let (steps, evaluations) =
                blocking(move || Ok::<_, Error>((store.steps()?, store.evaluations()?))).await?;
            if let Some(last) = steps.last() {
                self.last_step = step::numbers(&last.row);
            }
            if let Some((&version, record)) = evaluations.last_key_value() {
                self.show_evaluation(version, record);
            }
            self.parts.baselines.write(&self.parts.out)?;
            self.reports.rewrite(&Contents { steps, evaluations: evaluations.into_values().collect() })?;
            self.reports_behind = false;
        }
        if self.finish_wanted {
            let store = self.parts.store.clone();
            let evaluations = blocking(move || Ok::<_, Error>(store.evaluations()?)).await?;
            let steps = self.parts.machine.plan().steps;
            summary::write_finished(
                &self.parts.out,
                &self.parts.identity,
                steps,
                &evaluations,
                &self.parts.baselines,
            )?;
            self.finish_wanted = false;
            tracing::info!("all {steps} steps and {} evaluations are done", evaluations.len());
        }
        Ok(())
    }

    fn show_evaluation(&mut self, version: PolicyVersion, record: &EvaluationRecord) {
        let figures = evaluation::numbers(&record.row);
        metrics::evaluation_complete(&figures);
        self.last_evaluation = Some((version, figures));
    }

    /// Whether it is time to go.
    fn outcome(&mut self) -> Option<Outcome> {
        let machine = &self.parts.machine;
        machine.over()?;
        let unfinished = self.finish_wanted || self.reports_behind || !self.to_close.is_empty();
        let since = *self.over_since.get_or_insert_with(Instant::now);
        let patience = if machine.is_complete() {
            FAREWELL
        } else {
            // Whoever holds a lease hands it in, or is silent for as long as a lease lives.
            Duration::from_millis(machine.plan().lease_deadline.0)
        };
        let alone = self.met_somebody && machine.everyone_left();
        if unfinished || !(alone || since.elapsed() >= patience) {
            return None;
        }
        Some(if machine.is_complete() { Outcome::Complete } else { Outcome::Drained })
    }

    async fn write<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let result = blocking(work).await;
        metrics::store_write(began.elapsed(), result.is_ok());
        self.trouble = result.as_ref().err().map(ToString::to_string);
        result
    }

    fn note(&mut self, error: Option<impl std::fmt::Display>) {
        if let Some(error) = error {
            tracing::error!("{error}");
            self.trouble = Some(error.to_string());
        }
    }

    fn status(&self) -> v1::RunStatus {
        let machine = &self.parts.machine;
        let (sampling, evaluating) = (machine.sampling(), machine.evaluating());
        let worker = |(id, silent, leases, groups_done): (Uuid, Millis, u32, u64)| {
            let profile = self.profiles.get(&id).cloned().unwrap_or_default();
            v1::WorkerStatus {
                worker_id: id.to_string(),
                device: profile.device,
                host: profile.host,
                leases,
                groups_done,
                last_seen_ms: silent.0,
                metrics_address: profile.metrics_address,
            }
        };
        let workers: Vec<_> = machine.workers(self.now()).map(worker).collect();
        let mut warnings: Vec<String> = self.trouble.iter().cloned().collect();
        if workers.is_empty() && machine.over().is_none() {
            warnings.push("no rollout worker is connected".to_owned());
        }
        let evaluation = self.last_evaluation.as_ref();
        v1::RunStatus {
            run_id: self.parts.identity.run_id.to_string(),
            run_name: self.parts.identity.run_name.clone(),
            phase: phase(machine.phase()).into(),
            step: machine.committed().0,
            steps: machine.plan().steps,
            policy_version: machine.latest().0,
            groups_ready: sampling.ready,
            groups_wanted: sampling.wanted,
            evaluation_ready: evaluating.ready,
            evaluation_wanted: evaluating.wanted,
            workers,
            learner_ranks: machine.world().joined(),
            last_step_metrics: self.last_step.clone(),
            last_evaluation: evaluation.map(|(_, figures)| figures.clone()).unwrap_or_default(),
            last_evaluation_version: evaluation.map(|(version, _)| version.0),
            warnings,
        }
    }
}

const fn slot_of(group: &v1::ScoredGroup) -> Slot {
    Slot::Training(GroupId { step: Step(group.step), index: group.index })
}

const fn phase(phase: Phase) -> v1::RunPhase {
    match phase {
        Phase::Starting => v1::RunPhase::Starting,
        Phase::Training => v1::RunPhase::Training,
        Phase::Evaluating => v1::RunPhase::Evaluating,
        Phase::Finished => v1::RunPhase::Finished,
        Phase::Draining => v1::RunPhase::Draining,
    }
}
