//! The run as a state machine: slots and their results, the learner's ranks, complete steps, evaluations, and
//! the end of the run.
//!
//! The machine has no clock, files, network or tokio. Each method receives the time and an event, and returns
//! a [`Transition`]: the reply to the caller and the effects to perform. Methods about data that must survive
//! a crash (`results_stored`, `step_committed`, `version_published`, …) are visible only to [`sequencer`],
//! which stores the data first. [`Machine::restore`] rebuilds the machine from the store.
//!
//! In synchronous mode the batches depend only on the [`Schedule`] and the results. Step `s` opens once
//! version `s` is published, which is before step `s - 1` is committed. Every block has one content, and a slot is
//! filled once; the slots that dynamic sampling fills again depend only on their block. In asynchronous mode step `s` opens up to
//! `max_policy_lag` steps early, and the version that samples a block depends on the time of the lease. The
//! bound on its age always holds.

mod blocks;
mod checks;
mod ending;
mod error;
mod health;
mod leases;
mod rank_group;
mod ranks;
mod reopening;
mod report;
mod schedule;
pub mod sequencer;
mod transition;
mod versions;
mod workers;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use podium_grpo::{PolicyVersion, Step};
use uuid::Uuid;

use crate::results::Filled;
use blocks::Blocks;
pub use error::Error;
pub use health::{OldLease, RankHealth};
pub use leases::LeaseId;
use leases::Leases;
pub use rank_group::{Join, RankGroup, Rendezvous};
pub use reopening::Reopening;
pub use report::{Phase, Progress};
pub use schedule::{Millis, Schedule, Work};
pub use transition::{BatchReply, Effect, Lease, LeaseReply, Transition, Verdict};
pub use workers::MAX_OFFENCES;

/// The state that a restart finds in the store.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Number of committed steps.
    pub committed: u64,
    /// The newest published version; version 0 exists from the start.
    pub latest: u64,
    /// Every slot that has a result, with its last attempt.
    pub filled: Vec<Filled>,
    /// Slots of the current step that were reopened, by index.
    pub reopened: Vec<u32>,
    /// Versions whose evaluation is closed.
    pub evaluated: Vec<PolicyVersion>,
    /// Versions whose evaluation is abandoned.
    pub abandoned: Vec<PolicyVersion>,
    /// The evaluation that ended the run, and the reason.
    pub ended_by: Option<(PolicyVersion, String)>,
    /// The step that the last reported checkpoint of each rank continues with.
    pub checkpoints: BTreeMap<u32, Step>,
    /// The first step whose groups are stored.
    pub kept_from: u64,
    /// The learner's ranks.
    pub ranks: RankGroup,
}

#[derive(Debug)]
struct Worker {
    last_seen: Millis,
    slots_done: u64,
    /// Number of submissions of unusable results.
    offences: u32,
}

/// The state of a run.
#[derive(Debug)]
pub struct Machine {
    schedule: Schedule,
    committed: Step,
    latest: PolicyVersion,
    /// Unfinished work; `free_block` selects the block to lease first.
    open: BTreeMap<Work, Blocks>,
    /// Versions whose evaluation needs no more answers: answered, closed or abandoned.
    evaluated: BTreeSet<PolicyVersion>,
    /// Versions whose evaluation is abandoned and never closed.
    abandoned: BTreeSet<PolicyVersion>,
    /// The first evaluation that is not closed; `None` once all are closed.
    next_evaluation: Option<PolicyVersion>,
    /// The version with which an evaluation ended the run, and the reason.
    ended: Option<(PolicyVersion, String)>,
    leases: Leases,
    workers: BTreeMap<Uuid, Worker>,
    /// No worker is lost before this time. Calls of workers leave it unchanged.
    workers_expire: Millis,
    ranks: RankGroup,
    /// Ranks that know that the run is over.
    dismissed: BTreeSet<u32>,
    /// Time of the last call of each rank to this process.
    ranks_heard: BTreeMap<u32, Millis>,
    checkpoints: BTreeMap<u32, Step>,
    kept_from: Step,
    /// How often slots of the current step were reopened since this process started; 0 for slots that an
    /// earlier process reopened.
    reopened: BTreeMap<u32, u32>,
    /// Needed versions that cannot be served.
    missing: BTreeSet<PolicyVersion>,
    draining: Option<String>,
    complete: bool,
}

impl Machine {
    /// Returns the machine of a run in the recovered state. The default is the state of a new run.
    pub fn restore(schedule: Schedule, recovered: Recovered) -> Self {
        let abandoned: BTreeSet<PolicyVersion> = recovered.abandoned.into_iter().collect();
        let mut machine = Self {
            schedule,
            committed: Step(recovered.committed),
            // The newest version may have been dropped; it is then needed and missing.
            latest: PolicyVersion(recovered.latest.max(recovered.committed)),
            open: BTreeMap::new(),
            evaluated: recovered.evaluated.into_iter().chain(abandoned.iter().copied()).collect(),
            abandoned,
            next_evaluation: None,
            ended: None,
            leases: Leases::default(),
            workers: BTreeMap::new(),
            workers_expire: Millis(u64::MAX),
            ranks: recovered.ranks,
            dismissed: BTreeSet::new(),
            ranks_heard: BTreeMap::new(),
            checkpoints: recovered.checkpoints,
            kept_from: Step(recovered.kept_from),
            reopened: recovered.reopened.into_iter().map(|index| (index, 0)).collect(),
            missing: BTreeSet::new(),
            draining: None,
            complete: false,
        };
        machine.restore_evaluations(recovered.ended_by);
        machine.open_steps();
        for version in (0..=machine.committed.0).map(PolicyVersion) {
            machine.open_evaluation(version);
        }
        machine.fill_again(&recovered.filled);
        machine
    }

    /// Advances the time: expires leases and removes silent workers.
    pub fn tick(&mut self, now: Millis) -> Transition<()> {
        self.transition(now, |_, _| ())
    }

    /// Ends the run early; workers and ranks receive `reason`.
    pub fn drain(&mut self, now: Millis, reason: String) -> Transition<()> {
        self.transition(now, |machine, effects| {
            machine.draining.get_or_insert(reason);
            effects.push(Effect::Wake);
        })
    }

    /// Expires leases and workers, makes a change, and derives the consequences of the new state.
    fn transition<T>(
        &mut self,
        now: Millis,
        change: impl FnOnce(&mut Self, &mut Vec<Effect>) -> T,
    ) -> Transition<T> {
        let mut effects = Vec::new();
        self.expire(now, &mut effects);
        let reply = change(self, &mut effects);
        self.settle(&mut effects);
        Transition { reply, effects }
    }

    /// Fills the slots that were filled before a restart, attempt by attempt: an attempt before the last one
    /// had equal rewards.
    fn fill_again(&mut self, filled: &[Filled]) {
        for attempt in 0..=self.schedule.refill_attempts {
            for &Filled { slot, zero_variance } in filled {
                let (work, index, last) = Work::of(slot);
                if let Some(blocks) = self.open.get_mut(&work).filter(|_| attempt <= last) {
                    blocks.fill(index, attempt, zero_variance || attempt < last);
                }
            }
        }
    }

    /// Opens the current step, and the next one once the current step's version is published. In asynchronous
    /// mode also opens the later steps that a published version may sample. No step is opened that an evaluation
    /// may still exclude.
    fn open_steps(&mut self) {
        let end = self.committed.next().0.saturating_add(self.schedule.max_policy_lag);
        let end = end.max(self.latest.0.saturating_add(1));
        for step in self.committed.0..end.min(self.opens_before()) {
            self.open_work(Work::Training(Step(step)));
        }
    }

    fn open_evaluation(&mut self, version: PolicyVersion) {
        if self.schedule.evaluates(version) && !self.evaluated.contains(&version) {
            self.open_work(Work::Evaluation(version));
        }
    }

    fn open_work(&mut self, work: Work) {
        let blocks = self.schedule.blocks(work);
        self.open.entry(work).or_insert(blocks);
    }

    /// Derives the consequences of the state: answered evaluations, and the end of the run.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        let evaluated = &mut self.evaluated;
        self.open.retain(|work, blocks| match work {
            Work::Evaluation(version) if blocks.is_full() => {
                evaluated.insert(*version);
                false
            }
            _ => true,
        });
        let trained = self.committed.0 >= self.last_version().0;
        if !self.complete && trained && self.open.is_empty() {
            self.complete = true;
            effects.extend([Effect::RunComplete, Effect::Wake]);
        }
    }
}
