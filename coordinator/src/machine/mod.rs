//! The run as a state machine: which slots exist and who fills them, which ranks make up the learner, when a step is
//! complete, what is evaluated, and when the run is over.
//!
//! The machine has no clock, files, network or tokio. Each method takes the time and what happened, and returns a
//! [`Transition`]: the reply to the caller and the effects to perform. Methods about data that must survive a crash
//! (`results_stored`, `step_committed`, `version_published`, …) are visible to [`sequencer`] alone, which stores the data
//! first; [`Machine::restore`] rebuilds the machine from the store.
//!
//! In synchronous mode the batches depend on the [`Schedule`] and the results alone: step `s` opens once version `s` is
//! published, every block has one content, a slot is filled once, and which slots dynamic sampling fills again follows
//! from their block. In asynchronous mode step `s` opens up to `max_policy_lag` steps before its turn, and the version that
//! samples a block depends on the time of the lease; the bound on its age holds in any case.

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

/// What a restart finds in the store.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Number of committed steps.
    pub committed: u64,
    /// The newest published version; version 0 exists from the start.
    pub latest: u64,
    /// Every slot that has a result, at its last attempt.
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
    /// Number of times that results of it could not be used.
    offences: u32,
}

/// The state of a run.
#[derive(Debug)]
pub struct Machine {
    schedule: Schedule,
    committed: Step,
    latest: PolicyVersion,
    /// Unfinished work; `free_block` chooses what is leased first.
    open: BTreeMap<Work, Blocks>,
    /// Versions whose evaluation needs no more answers: answered, closed or abandoned.
    evaluated: BTreeSet<PolicyVersion>,
    /// Versions whose evaluation is abandoned: it is never closed.
    abandoned: BTreeSet<PolicyVersion>,
    /// The first evaluation that is not closed; `None` once all are.
    next_evaluation: Option<PolicyVersion>,
    /// The version with which an evaluation ended the run, and the reason.
    ended: Option<(PolicyVersion, String)>,
    leases: Leases,
    workers: BTreeMap<Uuid, Worker>,
    ranks: RankGroup,
    /// Ranks that know that the run is over.
    dismissed: BTreeSet<u32>,
    /// When this process last heard each rank.
    ranks_heard: BTreeMap<u32, Millis>,
    checkpoints: BTreeMap<u32, Step>,
    kept_from: Step,
    /// How often slots of the current step were reopened since this process started; 0: by an earlier process.
    reopened: BTreeMap<u32, u32>,
    /// Needed versions that cannot be served.
    missing: BTreeSet<PolicyVersion>,
    draining: Option<String>,
    complete: bool,
}

impl Machine {
    /// Returns the machine of a run in the recovered state; of a new run with the default.
    pub fn restore(schedule: Schedule, recovered: Recovered) -> Self {
        let abandoned: BTreeSet<PolicyVersion> = recovered.abandoned.into_iter().collect();
        let mut machine = Self {
            schedule,
            committed: Step(recovered.committed),
            // The newest version may have been dropped: then it is needed, and missing.
            latest: PolicyVersion(recovered.latest.max(recovered.committed)),
            open: BTreeMap::new(),
            evaluated: recovered.evaluated.into_iter().chain(abandoned.iter().copied()).collect(),
            abandoned,
            next_evaluation: None,
            ended: None,
            leases: Leases::default(),
            workers: BTreeMap::new(),
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

    /// Lets time pass: expires leases and loses silent workers.
    pub fn tick(&mut self, now: Millis) -> Transition<()> {
        self.transition(now, |_, _| ())
    }

    /// Ends the run early; `reason` is for workers and ranks.
    pub fn drain(&mut self, now: Millis, reason: String) -> Transition<()> {
        self.transition(now, |machine, effects| {
            machine.draining.get_or_insert(reason);
            effects.push(Effect::Wake);
        })
    }

    /// Makes a change, with what follows from the time before it and from the new state after it.
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

    /// Fills what was filled before a restart, attempt by attempt: one that another came after had equal rewards.
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

    /// Opens the current step, and in asynchronous mode the later ones that a published version may sample, up to the first
    /// step that an evaluation may still rule out.
    fn open_steps(&mut self) {
        let end = self.committed.next().0.saturating_add(self.schedule.max_policy_lag);
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

    /// Derives what follows from the state: answered evaluations, and the end of the run.
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
