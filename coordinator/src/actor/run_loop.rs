//! The actor's loop: handles one command, one closed step or evaluation, or one tick of the clock at a time.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::command::{Command, Sender};
use super::error::Error;
use super::handle::Handle;
use super::state::{ExitReason, Parts, State};
use crate::machine::{LeaseReply, Machine};
use crate::metrics;

/// Maximum number of commands that wait for the actor.
const MAILBOX: usize = 256;

/// Time between two checks of deadlines.
const TICK: Duration = Duration::from_millis(200);

/// Starts the actor of a run whose machine was restored from the store. It ends when the run is over and all workers and
/// ranks have disconnected, or when `stop` is cancelled.
pub fn start(parts: Parts, machine: Machine, stop: CancellationToken) -> (Handle, JoinHandle<ExitReason>) {
    let (mailbox, commands) = mpsc::channel(MAILBOX);
    let (changes, watched) = watch::channel(0);
    let actor = tokio::spawn(State::new(parts, machine, changes).run(commands, stop));
    (Handle::new(mailbox, watched), actor)
}

impl State {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) -> ExitReason {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.check_versions().await;
        self.list_processes();
        metrics::started(self.run.machine().waiting_groups());
        let reason = loop {
            tokio::select! {
                () = stop.cancelled() => break ExitReason::Stopped,
                command = commands.recv() => match command {
                    Some(command) => {
                        self.note_load();
                        self.handle_waiting(command, &mut commands).await;
                    }
                    None => break ExitReason::Stopped,
                },
                Some(closed) = self.closes.next() => {
                    self.note_load();
                    self.closed(closed).await;
                }
                _ = ticks.tick() => {
                    self.note_load();
                    if let Some(reason) = self.tick().await {
                        break reason;
                    }
                }
            }
            self.perform_effects();
        };
        // A later process on the same store must not run concurrently with a job of this one. It finds the
        // records that the job stores.
        while self.closes.next().await.is_some() {}
        reason
    }

    async fn tick(&mut self) -> Option<ExitReason> {
        let now = self.now();
        self.run.apply(|machine| machine.tick(now)).await;
        self.perform_effects();
        self.inspect_versions().await;
        self.catch_up().await;
        self.update_gauges();
        self.update_concerns();
        self.exit()
    }

    /// Handles a command and those that wait behind it. Submissions are collected and stored in one write, which makes
    /// the time of a write almost independent of their number.
    async fn handle_waiting(&mut self, first: Command, commands: &mut mpsc::Receiver<Command>) {
        let (mut next, mut handled, mut submissions) = (Some(first), 0, Vec::new());
        while let Some(command) = next {
            if !command.may_overtake(&submissions) {
                self.submit(std::mem::take(&mut submissions)).await;
                self.perform_effects();
            }
            match command {
                Command::Submit(waiting) => submissions.push(waiting),
                command => {
                    self.handle(command).await;
                    self.perform_effects();
                }
            }
            handled += 1;
            next = if handled < MAILBOX { commands.try_recv().ok() } else { None };
        }
        if !submissions.is_empty() {
            self.submit(submissions).await;
        }
    }

    /// Handles a command and replies to it. A reply to a caller that hung up is dropped.
    pub(super) async fn handle(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Register { worker, profile, reply } => {
                self.has_peers = true;
                tracing::info!("worker {worker} on {} ({}) registers", profile.host, profile.device);
                self.profiles.insert(worker, profile);
                self.run.apply(|machine| machine.register_worker(now, worker)).await;
                self.list_processes();
                self.changes.send_modify(|count| *count += 1);
                drop(reply.send(Ok(())));
            }
            Command::Lease { worker, reply } => {
                let granted = self.run.apply(|machine| machine.request_lease(now, worker)).await;
                if matches!(granted, Ok(LeaseReply::Granted(_))) {
                    metrics::lease_granted();
                }
                drop(reply.send(granted.map_err(Error::from)));
            }
            Command::Submit(waiting) => self.submit(vec![waiting]).await,
            Command::Verdicts { version, content, lease, slots, reply } => {
                drop(reply.send(Ok(self.verdicts(version, content, lease, &slots))));
            }
            Command::Offence { worker, lease, cause, reply } => {
                drop(reply.send(Ok(self.record_offence(worker, lease, &cause).await)));
            }
            Command::Heartbeat { worker, leases, reply } => {
                let lost = self.run.apply(|machine| machine.heartbeat(now, worker, &leases)).await;
                drop(reply.send(lost.map_err(Error::from)));
            }
            Command::Disconnect { worker, reply } => {
                tracing::info!("worker {worker} disconnects");
                self.profiles.remove(&worker);
                self.run.apply(|machine| machine.disconnect_worker(now, worker)).await;
                self.list_processes();
                drop(reply.send(Ok(())));
            }
            Command::Join { join, reason, reply } => {
                self.has_peers = true;
                if !reason.is_empty() {
                    self.note_rank(join.rank, format!("rank {} joins again: {reason}", join.rank));
                }
                let rendezvous = self.run.apply(|machine| machine.join(now, join)).await;
                self.list_processes();
                drop(reply.send(rendezvous.map_err(Error::from)));
            }
            Command::Batch { request, reply } => {
                let result = self.batch(request.clone()).await;
                self.reply_or_park(result, reply, |reply| Command::Batch { request, reply });
            }
            Command::Commit { mut report, reply } => {
                let result = self.commit(&mut report).await;
                self.reply_or_park(result, reply, |reply| Command::Commit { report, reply });
            }
            Command::SetAside { report, reply } => {
                let result = self.set_aside(report.clone()).await;
                self.reply_or_park(result, reply, |reply| Command::SetAside { report, reply });
            }
            Command::Fail { learner, kind, reason, reply } => {
                metrics::rank_failed(kind);
                if let Some(rank) = self.run.machine().rank_of(learner) {
                    self.note_rank(rank, format!("rank {rank} ended: {reason}"));
                } else {
                    tracing::warn!("a learner that is not a rank ended: {reason}");
                }
                drop(reply.send(Ok(())));
            }
            Command::Alive { learner, reply } => {
                self.run.apply(|machine| machine.rank_alive(now, learner)).await;
                drop(reply.send(Ok(())));
            }
            Command::Offer { learner, manifest, reply } => {
                let result = self.offer(learner, &manifest);
                self.reply_or_park(result, reply, |reply| Command::Offer { learner, manifest, reply });
            }
            Command::Publish { learner, manifest, reply } => {
                let result = self.publish(learner, &manifest).await;
                self.reply_or_park(result, reply, |reply| Command::Publish { learner, manifest, reply });
            }
            Command::Status { reply } => drop(reply.send(Ok(self.status()))),
            Command::Drain { reason, reply } => {
                tracing::info!("the run ends early: {reason}");
                self.run.apply(|machine| machine.drain(now, reason)).await;
                drop(reply.send(Ok(())));
            }
        }
    }

    /// Replies to a command, or holds it until the current close of a step has ended.
    fn reply_or_park<T>(
        &mut self,
        result: Result<Option<T>, Error>,
        reply: Sender<T>,
        again: impl FnOnce(Sender<T>) -> Command,
    ) {
        match result.transpose() {
            Some(result) => drop(reply.send(result)),
            None => self.closes.park(again(reply)),
        }
    }
}
