//! The run as a state machine: time and events in, actions out.
//!
//! Decides which slots exist and who fills them, until when, in what order work is handed out, when a step is complete,
//! which ranks make up the learner, what is evaluated and when the run is over. It does nothing itself: no clock, no
//! files, no network, no tokio. What must survive a crash is written by whoever drives it *before* the event that says
//! so ([`Event::Scored`], [`Event::StepCommitted`], [`Event::VersionPublished`]); [`Machine::restore`] starts from that.
//!
//! In synchronous mode the batches depend on nothing but the [`Plan`] and the results: step `s` opens once version `s` is
//! there, every block has one content, a slot is filled once, and which slots dynamic sampling fills again follows from
//! their block alone. In asynchronous mode step `s` opens up to `max_policy_lag` steps before its turn, and which
//! version samples a block depends on when it is handed out; that the version is at most so old does not.

mod blocks;
mod checks;
mod ending;
mod error;
mod events;
mod health;
mod leases;
mod plan;
mod ranks;
mod reopening;
mod report;
mod versions;
mod workers;
mod world;

#[cfg(test)]
mod pace;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use podium_grpo::{PolicyVersion, Step};
use uuid::Uuid;

use blocks::Blocks;
pub use error::Error;
pub use events::{Action, Event, Filled, Lease, Verdict};
pub use health::{OldLease, RankHealth};
pub use leases::LeaseId;
use leases::{Held, Leases};
pub use plan::{Millis, Plan, Work};
pub use reopening::Reopening;
pub use report::{Phase, Progress};
pub use workers::MOST_OFFENCES;
pub use world::{Join, Standing, World};

/// What a restart finds in the store.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Steps committed.
    pub committed: u64,
    /// The newest version that is there; version 0 is from the start.
    pub latest: u64,
    /// Every slot whose result is kept, of its last attempt.
    pub filled: Vec<Filled>,
    /// Slots of the step being made that were reopened, by index.
    pub reopened: Vec<u32>,
    /// Versions whose evaluation is complete.
    pub evaluated: Vec<PolicyVersion>,
    /// The evaluation that ended the run, and why, if one did.
    pub ended_by: Option<(PolicyVersion, String)>,
    /// The step that each rank's last reported checkpoint continues with.
    pub checkpoints: BTreeMap<u32, Step>,
    /// The first step whose groups are kept.
    pub kept_from: u64,
    /// The ranks.
    pub world: World,
}

#[derive(Debug)]
struct Worker {
    last_seen: Millis,
    slots_done: u64,
    /// Times that results of it could not be used.
    offences: u32,
}

/// The run.
#[derive(Debug)]
pub struct Machine {
    plan: Plan,
    committed: Step,
    latest: PolicyVersion,
    /// Work that is not done; `free_block` says what of it comes first.
    open: BTreeMap<Work, Blocks>,
    evaluated: BTreeSet<PolicyVersion>,
    /// The first evaluation that has not been judged; `None` once all are.
    to_judge: Option<PolicyVersion>,
    /// The version with which an evaluation ended the run, and why.
    ended: Option<(PolicyVersion, String)>,
    leases: Leases,
    workers: BTreeMap<Uuid, Worker>,
    world: World,
    ranks_told: BTreeSet<u32>,
    /// When each rank was last heard by this process.
    ranks_heard: BTreeMap<u32, Millis>,
    checkpoints: BTreeMap<u32, Step>,
    kept_from: Step,
    /// How often slots of the step being made were reopened since this process started; 0: only by one before it.
    reopened: BTreeMap<u32, u32>,
    /// Needed versions that cannot be served.
    missing: BTreeSet<PolicyVersion>,
    draining: Option<String>,
    complete: bool,
}

impl Machine {
    /// The machine of a run that stands where `recovered` says; of a new run with the default.
    pub fn restore(plan: Plan, recovered: Recovered) -> Self {
        let mut machine = Self {
            plan,
            committed: Step(recovered.committed),
            // The newest may have been dropped: then it is needed, and missing.
            latest: PolicyVersion(recovered.latest.max(recovered.committed)),
            open: BTreeMap::new(),
            evaluated: recovered.evaluated.into_iter().collect(),
            to_judge: None,
            ended: None,
            leases: Leases::default(),
            workers: BTreeMap::new(),
            world: recovered.world,
            ranks_told: BTreeSet::new(),
            ranks_heard: BTreeMap::new(),
            checkpoints: recovered.checkpoints,
            kept_from: Step(recovered.kept_from),
            reopened: recovered.reopened.into_iter().map(|index| (index, 0)).collect(),
            missing: BTreeSet::new(),
            draining: None,
            complete: false,
        };
        machine.restore_judgements(recovered.ended_by);
        machine.open_steps();
        for version in (0..=machine.committed.0).map(PolicyVersion) {
            machine.open_evaluation(version);
        }
        machine.fill_again(&recovered.filled);
        machine
    }

    /// Takes one event and says what is to be done, the answer first.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Action> {
        self.touch(now, &event);
        let expired = self.expire(now);
        let mut actions = Vec::new();
        match event {
            Event::WorkerRegistered { worker } => {
                self.workers.entry(worker).or_insert(Worker { last_seen: now, slots_done: 0, offences: 0 });
            }
            Event::WorkerLeft { worker } => self.remove_worker(worker, &mut actions),
            Event::Heartbeat { worker, leases } => self.heartbeat(now, worker, &leases, &mut actions),
            Event::LeaseWanted { worker } => actions.push(self.lease(now, worker)),
            Event::Scored { worker, lease, filled } => self.fill(now, (worker, lease), &filled, &mut actions),
            Event::Offended { worker, lease } => self.offend(worker, lease, &mut actions),
            Event::RankJoined(join) => self.join(join, &mut actions),
            Event::BatchWanted { rank, learner, step } => actions.push(self.batch(rank, learner, step)),
            Event::Reopened { step, slots } => self.reopen(step, &slots, &mut actions),
            Event::VersionPublished { version } => self.published(version, &mut actions),
            Event::VersionSuperseded { version } => self.supersede(version, &mut actions),
            Event::VersionsInspected { missing } => self.inspected(missing, &mut actions),
            Event::EvaluationLost { version } => self.lose_evaluation(version, &mut actions),
            Event::StepCommitted { step } => self.commit(step, &mut actions),
            Event::CheckpointKept { rank, step } => self.keep_checkpoint(rank, step, &mut actions),
            Event::EvaluationJudged { version, end } => self.judge(version, end, &mut actions),
            Event::RankTold { rank } => {
                self.ranks_told.insert(rank);
            }
            Event::DrainWanted { reason } => {
                self.draining.get_or_insert(reason);
                actions.push(Action::Wake);
            }
            Event::Tick | Event::RankAlive { .. } => {}
        }
        actions.extend(expired);
        self.settle(&mut actions);
        actions
    }

    fn touch(&mut self, now: Millis, event: &Event) {
        if let Event::WorkerRegistered { worker }
        | Event::Heartbeat { worker, .. }
        | Event::LeaseWanted { worker }
        | Event::Scored { worker, .. }
        | Event::Offended { worker, lease: Some(_) } = event
            && let Some(worker) = self.workers.get_mut(worker)
        {
            worker.last_seen = now;
        }
        let rank = match event {
            Event::RankJoined(join) => Some(join.rank),
            Event::BatchWanted { learner, .. } | Event::RankAlive { learner } => self.rank_of(*learner),
            _ => None,
        };
        if let Some(rank) = rank {
            self.ranks_heard.insert(rank, now);
        }
    }

    /// Fills what was filled before a restart, attempt by attempt: one that another came after had equal rewards.
    fn fill_again(&mut self, filled: &[Filled]) {
        for attempt in 0..=self.plan.refill_attempts {
            for &Filled { slot, zero_variance } in filled {
                let (work, index, last) = Work::of(slot);
                if let Some(blocks) = self.open.get_mut(&work).filter(|_| attempt <= last) {
                    blocks.fill(index, attempt, zero_variance || attempt < last);
                }
            }
        }
    }

    /// Opens the step being made, and in asynchronous mode those that a version which is there may sample already; none
    /// that an evaluation may still rule out.
    fn open_steps(&mut self) {
        let end = self.committed.next().0.saturating_add(self.plan.max_policy_lag);
        for step in self.committed.0..end.min(self.opens_before()) {
            self.open_work(Work::Training(Step(step)));
        }
    }

    fn open_evaluation(&mut self, version: PolicyVersion) {
        if self.plan.evaluates(version) && !self.evaluated.contains(&version) {
            self.open_work(Work::Evaluation(version));
        }
    }

    fn open_work(&mut self, work: Work) {
        let blocks = self.plan.blocks(work);
        self.open.entry(work).or_insert(blocks);
    }

    /// What follows from the state rather than from an event.
    fn settle(&mut self, actions: &mut Vec<Action>) {
        let answered = |(work, blocks): (&Work, &Blocks)| match work {
            Work::Evaluation(version) if blocks.is_full() => Some(*version),
            _ => None,
        };
        let answered: Vec<PolicyVersion> = self.open.iter().filter_map(answered).collect();
        for version in answered {
            self.open.remove(&Work::Evaluation(version));
            self.evaluated.insert(version);
            actions.push(Action::EvaluationComplete(version));
        }
        let trained = self.committed.0 >= self.last_version().0;
        if !self.complete && trained && self.open.is_empty() {
            self.complete = true;
            actions.extend([Action::RunComplete, Action::Wake]);
        }
    }
}
