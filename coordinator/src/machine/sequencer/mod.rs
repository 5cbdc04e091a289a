//! The order in which data becomes durable, the machine receives it, and callers get their replies.
//!
//! The [`Sequencer`] owns the machine and its [`Storage`]. It is the only code that notifies the machine of
//! stored data: it writes first, then makes the transition, then returns the reply. A crash between any two
//! of these leaves a store that [`Machine::restore`] continues from. The coordinator's actor and the
//! simulation both drive the run through it.
//!
//! Closing a step or an evaluation takes long, so the sequencer does not wait for it. [`Reply::Close`] instructs
//! the caller to create and store the record of a step and to report that to [`Sequencer::step_closed`]. Until
//! then calls that depend on the commit of the step get [`Reply::Wait`]; all other calls are served.

mod storage;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use podium_grpo::{PolicyVersion, Step};
use podium_proto::v1;
use uuid::Uuid;

use super::{BatchReply, Effect, Error, LeaseId, Machine, Millis, Reopening, Transition, Verdict, Work};
use crate::results::{Results, SampledBy, SetAside};
pub use storage::{Storage, Write};

/// The run: its machine and its storage, in agreement.
#[derive(Debug)]
pub struct Sequencer<S: Storage> {
    machine: Machine,
    storage: S,
    /// The step whose record is being created and stored.
    closing: Option<Step>,
    effects: Vec<Effect>,
    failures: Vec<S::Error>,
}

/// A reply that may depend on closing a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<T> {
    /// The reply of the call.
    Ready(T),
    /// Close this step, report it by [`Sequencer::step_closed`] or [`Sequencer::close_failed`], and repeat
    /// the call.
    Close(Step),
    /// Repeat the call after the current close of a step.
    Wait,
}

/// Checked and scored results that a worker submits.
#[derive(Debug)]
pub struct Submission {
    /// The worker.
    pub worker: SampledBy,
    /// The lease, if this process granted it.
    pub lease: Option<LeaseId>,
    /// The version that sampled the results.
    pub version: PolicyVersion,
    /// Whether the version still has the content that sampled the results.
    pub is_current: bool,
    /// The results.
    pub results: Results,
}

/// Numbers of results by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Results that filled a slot.
    pub accepted: u32,
    /// Results whose slots were filled already.
    pub repeated: u32,
    /// Results whose slots wait for another version or do not exist.
    pub refused: u32,
}

/// The outcome of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Submitted {
    /// Results of training slots.
    pub training: Counts,
    /// Results of evaluation slots.
    pub evaluation: Counts,
    /// Number of accepted training completions, and of their tokens.
    pub volume: (usize, usize),
}

/// A finished step that a rank commits.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    /// The process of the rank.
    pub learner: Uuid,
    /// The step.
    pub step: Step,
    /// The step that this rank's checkpoint now continues with.
    pub checkpoint: Option<Step>,
}

/// Groups that a rank cannot train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The process of the rank.
    pub learner: Uuid,
    /// Id of the report, chosen by the process; a repeated report changes nothing.
    pub id: Uuid,
    /// The step of the groups.
    pub step: Step,
    /// The groups.
    pub groups: Vec<Unusable>,
}

/// A group that a rank cannot train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Position in the step's batch.
    pub index: u32,
    /// The attempt at that position.
    pub attempt: u32,
    /// The cause.
    pub cause: String,
}

/// The groups of a step that were set aside, by earlier reports and by this one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aside {
    /// Groups of earlier reports.
    pub before: Vec<SetAside>,
    /// Groups of this report; empty if it is a repeated one.
    pub new: Vec<SetAside>,
}

impl<S: Storage> Sequencer<S> {
    /// Returns the sequencer of a machine that was restored from this storage.
    pub const fn new(machine: Machine, storage: S) -> Self {
        Self { machine, storage, closing: None, effects: Vec::new(), failures: Vec::new() }
    }

    /// Returns the machine.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Returns the storage.
    pub const fn storage(&self) -> &S {
        &self.storage
    }

    /// Returns the storage for operations other than the sequencer's writes.
    pub const fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Returns the step that is being closed.
    pub const fn closing(&self) -> Option<Step> {
        self.closing
    }

    /// Takes the effects that remain for the caller, and the errors of effects that write. A restart finds
    /// the data of a failed write again.
    pub fn take_effects(&mut self) -> (Vec<Effect>, Vec<S::Error>) {
        (std::mem::take(&mut self.effects), std::mem::take(&mut self.failures))
    }

    /// Makes a transition that requires no write before it.
    pub async fn apply<T>(&mut self, transition: impl FnOnce(&mut Machine) -> Transition<T>) -> T {
        let Transition { reply, effects } = transition(&mut self.machine);
        for effect in effects {
            let written = match effect {
                Effect::StoreRankGroup => {
                    let ranks = self.machine.rank_group().clone();
                    self.storage.write(Write::RankGroup(ranks)).await
                }
                Effect::DropGroups { before } => self.storage.write(Write::DroppedGroups { before }).await,
                Effect::Wake | Effect::LeaseExpired(_) | Effect::WorkerLost(_) | Effect::RunComplete => {
                    Ok(())
                }
            };
            self.failures.extend(written.err());
            self.effects.push(effect);
        }
        reply
    }

    /// Stores the wanted results of submissions in one write, and fills their slots. The outcomes are those of one
    /// submission after the other, except that a result of an attempt that an earlier one of them begins is refused. An
    /// error of the storage is that of all submissions, and has no effect.
    pub async fn submit(
        &mut self,
        now: Millis,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Result<Submitted, Error>>, S::Error> {
        let mut outcomes = Vec::with_capacity(submissions.len());
        let (mut writes, mut fills, mut taken) = (Vec::new(), Vec::new(), BTreeSet::new());
        for Submission { worker, lease, version, is_current, mut results } in submissions {
            let id = worker.worker;
            if let Err(refused) = self.machine.check_worker(id) {
                outcomes.push(Err(refused));
                continue;
            }
            let mut submitted = Submitted::default();
            let mut wanted = Vec::new();
            results.retain(|filled| {
                let counts = match Work::of(filled.slot).0 {
                    Work::Training(_) => &mut submitted.training,
                    Work::Evaluation(_) => &mut submitted.evaluation,
                };
                match self.machine.verdict_under(filled.slot, version, lease) {
                    // A message may contain a slot twice, and so may several messages.
                    Verdict::Wanted if is_current && taken.insert(filled.slot) => {
                        counts.accepted += 1;
                        wanted.push(filled);
                        return true;
                    }
                    _ if !is_current => counts.refused += 1,
                    Verdict::Wanted | Verdict::Repeated => counts.repeated += 1,
                    Verdict::Refused => counts.refused += 1,
                }
                false
            });
            submitted.volume = results.volume();
            outcomes.push(Ok(submitted));
            if !results.is_empty() {
                writes.push((results, worker));
            }
            fills.push(((id, lease), wanted));
        }
        if !writes.is_empty() {
            self.storage.write(Write::Results(writes)).await?;
        }
        for (source, filled) in fills {
            self.apply(|machine| machine.results_stored(now, source, &filled)).await;
        }
        Ok(outcomes)
    }

    /// Answers a rank that requests its share of a step. If the commit of the previous step was lost, that
    /// step is closed first.
    pub async fn request_batch(
        &mut self,
        now: Millis,
        rank: u32,
        learner: Uuid,
        step: Step,
    ) -> Result<Reply<BatchReply>, S::Error> {
        if let Some(missed) = self.machine.missed_commit(rank, learner, step) {
            return Ok(self.close(missed));
        }
        let reply = self.apply(|machine| machine.request_batch(now, rank, learner, step)).await?;
        Ok(Reply::Ready(reply))
    }

    /// Commits a step and stores the coverage of a checkpoint. The reply is whether the run is over for the
    /// rank.
    pub async fn commit(&mut self, now: Millis, commit: Commit) -> Result<Reply<bool>, S::Error> {
        let Commit { learner, step, checkpoint } = commit;
        let (rank, advances) = self.machine.check_commit(learner, step)?;
        if advances {
            return Ok(self.close(step));
        }
        if let Some(step) = checkpoint {
            self.storage.write(Write::Checkpoint { rank, step }).await?;
            self.apply(|machine| machine.checkpoint_stored(now, rank, step)).await;
        }
        let machine = &self.machine;
        let is_last = step.next().0 >= machine.last_version().0;
        // Before rank 0 shuts down, it publishes a version that no other process can produce.
        let must_republish = rank == 0 && machine.to_republish(step.next()).is_some();
        let over = (is_last && !must_republish) || machine.over().is_some();
        if over {
            self.apply(|machine| machine.dismiss_rank(now, rank)).await;
        }
        Ok(Reply::Ready(over))
    }

    fn close<T>(&mut self, step: Step) -> Reply<T> {
        match self.closing.replace(step) {
            Some(_) => Reply::Wait,
            None => Reply::Close(step),
        }
    }

    /// Commits the step that was being closed, after its record was stored.
    pub async fn step_closed(&mut self, now: Millis) {
        if let Some(step) = self.closing.take() {
            self.apply(|machine| machine.step_committed(now, step)).await;
        }
    }

    /// Abandons the close of the step, because its record was not stored. The next call that depends on it
    /// starts it again.
    pub const fn close_failed(&mut self) {
        self.closing = None;
    }

    /// Accepts a closed evaluation, whose record is stored. `end`: the reason why it ends the run, if it
    /// does.
    pub async fn evaluation_closed(&mut self, now: Millis, version: PolicyVersion, end: Option<String>) {
        self.apply(|machine| machine.evaluation_closed(now, version, end)).await;
    }

    /// Removes groups that a rank cannot train on from the store, stores the causes, and reopens their slots.
    pub async fn set_aside(&mut self, now: Millis, report: Report) -> Result<Reply<Aside>, S::Error> {
        if self.closing.is_some() {
            return Ok(Reply::Wait);
        }
        let Report { learner, id, step, groups } = report;
        let before = self.storage.set_aside(step).await?;
        if before.iter().any(|aside| aside.report == id) {
            return Ok(Reply::Ready(Aside { before, new: Vec::new() }));
        }
        let named: Vec<(u32, u32)> = groups.iter().map(|group| (group.index, group.attempt)).collect();
        let Reopening { slots, removed } = self.machine.reopening(learner, step, &named)?;
        let mut new = Vec::new();
        for &(index, attempt) in &slots {
            let (worker, version) = self.storage.sampled_by(step, index).await?;
            let group = groups.iter().find(|group| (group.index, group.attempt) == (index, attempt));
            new.push(SetAside {
                report: id,
                step: step.0,
                index,
                attempt,
                policy_version: version.map(|version| version.0),
                worker,
                cause: group.map(|group| group.cause.clone()).unwrap_or_default(),
            });
        }
        self.storage.write(Write::SetAside { removed, records: new.clone() }).await?;
        self.apply(|machine| machine.slots_reopened(now, step, &slots)).await;
        Ok(Reply::Ready(Aside { before, new }))
    }

    /// Checks that a process may publish versions now. The permitted content of a version depends on the
    /// commit of the step that is being closed.
    pub fn check_publisher(&self, learner: Uuid) -> Result<Reply<()>, Error> {
        if self.closing.is_some() {
            return Ok(Reply::Wait);
        }
        self.machine.check_publisher(learner)?;
        Ok(Reply::Ready(()))
    }

    /// Stores the manifest of a version whose folder is complete, and publishes the version.
    pub async fn publish(&mut self, now: Millis, manifest: v1::PolicyManifest) -> Result<(), S::Error> {
        let version = PolicyVersion(manifest.policy_version);
        self.storage.write(Write::Published(manifest)).await?;
        self.apply(|machine| machine.version_published(now, version)).await;
        Ok(())
    }

    /// Stores the manifest of a version that replaces a published one, removes the results that the old
    /// content may have sampled, and reopens their work. Returns the number of removed groups.
    pub async fn supersede(&mut self, now: Millis, manifest: v1::PolicyManifest) -> Result<u64, S::Error> {
        let version = PolicyVersion(manifest.policy_version);
        self.storage.write(Write::Superseded(manifest)).await?;
        let before = self.machine.waiting_groups();
        self.apply(|machine| machine.version_superseded(now, version)).await;
        Ok(before.saturating_sub(self.machine.waiting_groups()))
    }

    /// Stores that the evaluation of a version is abandoned, and abandons it.
    pub async fn abandon_evaluation(
        &mut self,
        now: Millis,
        version: PolicyVersion,
        reason: String,
    ) -> Result<(), S::Error> {
        self.storage.write(Write::AbandonedEvaluation { version, reason }).await?;
        self.apply(|machine| machine.evaluation_abandoned(now, version)).await;
        Ok(())
    }
}
