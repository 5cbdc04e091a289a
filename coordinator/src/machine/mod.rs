//! The run as a state machine: time and events in, actions out.
//!
//! Decides which slots exist and who fills them, until when, in what order work is handed out, when a step is complete,
//! which ranks make up the learner, what is evaluated and when the run is over. It does nothing itself: no clock, no
//! files, no network, no tokio. What must survive a crash is written by whoever drives it *before* the event that says
//! so ([`Event::Scored`], [`Event::StepCommitted`], [`Event::VersionPublished`]); [`Machine::restore`] starts from that.
//!
//! Slots follow from the [`Plan`] alone: step `s` opens once version `s` is there, every block has one content, and a
//! slot is filled once. So the batches do not depend on workers or timing.

mod blocks;
mod error;
mod events;
mod leases;
mod plan;
mod report;
mod world;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::Slot;
use uuid::Uuid;

use blocks::Blocks;
pub use error::Error;
pub use events::{Action, Event, Lease, Verdict};
pub use leases::LeaseId;
use leases::{Held, Leases};
pub use plan::{Millis, Plan, Work};
pub use report::{Phase, Progress};
pub use world::{Join, Standing, World};

/// Leases that a worker holds at once: one to sample, and one that it is handing in.
const MOST_LEASES: usize = 2;

/// A lease that so many heartbeats of its worker in a row do not name never reached it.
const UNHEARD_AFTER: u32 = 2;

/// What a restart finds in the store.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Steps committed.
    pub committed: u64,
    /// The newest version that is there; version 0 is from the start.
    pub latest: u64,
    /// Every slot whose result is kept.
    pub filled: Vec<Slot>,
    /// Versions whose evaluation is complete.
    pub evaluated: Vec<PolicyVersion>,
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
}

/// The run.
#[derive(Debug)]
pub struct Machine {
    plan: Plan,
    committed: Step,
    latest: PolicyVersion,
    /// Work that is not done, in the order in which it is handed out.
    open: BTreeMap<Work, Blocks>,
    evaluated: BTreeSet<PolicyVersion>,
    leases: Leases,
    workers: BTreeMap<Uuid, Worker>,
    world: World,
    ranks_told: BTreeSet<u32>,
    checkpoints: BTreeMap<u32, Step>,
    kept_from: Step,
    draining: Option<String>,
    complete: bool,
}

impl Machine {
    /// The machine of a run that stands where `recovered` says; of a new run with the default.
    pub fn restore(plan: Plan, recovered: Recovered) -> Self {
        let mut machine = Self {
            plan,
            committed: Step(recovered.committed),
            latest: PolicyVersion(recovered.latest),
            open: BTreeMap::new(),
            evaluated: recovered.evaluated.into_iter().collect(),
            leases: Leases::default(),
            workers: BTreeMap::new(),
            world: recovered.world,
            ranks_told: BTreeSet::new(),
            checkpoints: recovered.checkpoints,
            kept_from: Step(recovered.kept_from),
            draining: None,
            complete: false,
        };
        machine.open_step();
        for version in (0..=machine.committed.0).map(PolicyVersion) {
            machine.open_evaluation(version);
        }
        for slot in recovered.filled {
            let (work, index) = Work::of(slot);
            if let Some(blocks) = machine.open.get_mut(&work) {
                blocks.fill(index);
            }
        }
        machine
    }

    /// Takes one event and says what is to be done, the answer first.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Action> {
        self.touch(now, &event);
        let expired = self.expire(now);
        let mut actions = Vec::new();
        match event {
            Event::WorkerRegistered { worker } => {
                self.workers.entry(worker).or_insert(Worker { last_seen: now, slots_done: 0 });
            }
            Event::WorkerLeft { worker } => self.remove_worker(worker, &mut actions),
            Event::Heartbeat { worker, leases } => self.heartbeat(now, worker, &leases, &mut actions),
            Event::LeaseWanted { worker } => actions.push(self.lease(now, worker)),
            Event::Scored { worker, lease, slots } => self.fill(worker, lease, &slots, &mut actions),
            Event::RankJoined(join) => self.join(join, &mut actions),
            Event::BatchWanted { rank, learner, step } => actions.push(self.batch(rank, learner, step)),
            Event::VersionPublished { version } => self.latest = self.latest.max(version),
            Event::StepCommitted { step } => self.commit(step, &mut actions),
            Event::CheckpointKept { rank, step } => self.keep_checkpoint(rank, step, &mut actions),
            Event::RankTold { rank } => {
                self.ranks_told.insert(rank);
            }
            Event::DrainWanted { reason } => {
                self.draining.get_or_insert(reason);
                actions.push(Action::Wake);
            }
            Event::Tick => {}
        }
        actions.extend(expired);
        self.settle(&mut actions);
        actions
    }

    /// What would become of a result for `slot` that `version` sampled.
    pub fn verdict(&self, slot: Slot, version: PolicyVersion) -> Verdict {
        let (work, index) = Work::of(slot);
        if version != work.version() || index >= self.plan.slots(work).0 {
            return Verdict::Refused;
        }
        let done = match work {
            Work::Training(step) => step < self.committed,
            Work::Evaluation(version) => self.evaluated.contains(&version),
        };
        match self.open.get(&work).and_then(|blocks| blocks.is_filled(index)) {
            Some(false) => Verdict::Wanted,
            Some(true) => Verdict::Repeated,
            None if done => Verdict::Repeated,
            None => Verdict::Refused,
        }
    }

    /// The rank that commits `step`, and whether its commit moves the run on: a repeated one does not, nor does one of a
    /// rank other than 0.
    pub fn check_commit(&self, learner: Uuid, step: Step) -> Result<(u32, bool), Error> {
        let rank = self.world.rank_of(learner).ok_or(Error::UnknownLearner { learner })?;
        if step > self.committed {
            return Err(Error::StepAhead { step, committed: self.committed });
        }
        if step < self.committed || rank != 0 {
            return Ok((rank, false));
        }
        let (wanted, _) = self.plan.slots(Work::Training(step));
        let ready = self.open.get(&Work::Training(step)).map_or(0, Blocks::ready);
        if ready < wanted {
            return Err(Error::NotSampled { step, ready, wanted });
        }
        let version = step.produces();
        if self.latest < version {
            return Err(Error::NotPublished { step, version });
        }
        Ok((rank, true))
    }

    /// The step whose commit never arrived, where rank 0 already asks for the one after it: its checkpoint was written,
    /// and it died before it could say so.
    pub fn missed_commit(&self, rank: u32, learner: Uuid, step: Step) -> Option<Step> {
        let missed = self.committed;
        let fresh = self.check_commit(learner, missed).is_ok_and(|(_, fresh)| fresh);
        (rank == 0 && step == missed.next() && fresh).then_some(missed)
    }

    /// Whether a version may be published now: at most the one that the step being made produces.
    pub fn check_publish(&self, version: PolicyVersion) -> Result<(), Error> {
        if version <= self.committed.produces() && version <= self.plan.last_version() {
            Ok(())
        } else {
            Err(Error::VersionAhead { version, committed: self.committed })
        }
    }

    fn open_step(&mut self) {
        if self.committed.0 < self.plan.steps {
            self.open_work(Work::Training(self.committed));
        }
    }

    fn open_evaluation(&mut self, version: PolicyVersion) {
        if self.plan.evaluates(version) && !self.evaluated.contains(&version) {
            self.open_work(Work::Evaluation(version));
        }
    }

    fn open_work(&mut self, work: Work) {
        let (slots, per_lease) = self.plan.slots(work);
        self.open.insert(work, Blocks::new(slots, per_lease));
    }

    fn touch(&mut self, now: Millis, event: &Event) {
        if let Event::WorkerRegistered { worker }
        | Event::Heartbeat { worker, .. }
        | Event::LeaseWanted { worker }
        | Event::Scored { worker, .. } = event
            && let Some(worker) = self.workers.get_mut(worker)
        {
            worker.last_seen = now;
        }
    }

    fn expire(&mut self, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        for id in self.leases.expired(now) {
            self.leases.remove(id);
            actions.extend([Action::LeaseExpired(id), Action::Wake]);
        }
        let silent = |worker: &Worker| worker.last_seen + self.plan.lease_deadline <= now;
        let lost: Vec<Uuid> =
            self.workers.iter().filter(|(_, worker)| silent(worker)).map(|(id, _)| *id).collect();
        for worker in lost {
            self.remove_worker(worker, &mut actions);
            actions.push(Action::WorkerLost(worker));
        }
        actions
    }

    fn remove_worker(&mut self, worker: Uuid, actions: &mut Vec<Action>) {
        self.workers.remove(&worker);
        let held: Vec<LeaseId> = self.leases.of_worker(worker).collect();
        for id in held {
            self.leases.remove(id);
            actions.push(Action::Wake);
        }
    }

    fn heartbeat(&mut self, now: Millis, worker: Uuid, leases: &[LeaseId], actions: &mut Vec<Action>) {
        if !self.workers.contains_key(&worker) {
            actions.push(Action::Refuse(Error::UnknownWorker { worker }));
            return;
        }
        let lost = leases.iter().filter(|&&lease| !self.leases.belongs(lease, worker)).copied().collect();
        actions.push(Action::Lost(lost));
        let deadline = now + self.plan.lease_deadline;
        for id in self.leases.beat(worker, leases, deadline, UNHEARD_AFTER) {
            self.leases.remove(id);
            actions.extend([Action::LeaseExpired(id), Action::Wake]);
        }
    }

    fn lease(&mut self, now: Millis, worker: Uuid) -> Action {
        if !self.workers.contains_key(&worker) {
            return Action::Refuse(Error::UnknownWorker { worker });
        }
        if let Some(reason) = self.over() {
            return Action::Leave { reason };
        }
        if self.leases.of_worker(worker).count() >= MOST_LEASES {
            return Action::Wait;
        }
        let Some((work, block)) = self.free_block() else { return Action::Wait };
        let deadline = now + self.plan.lease_deadline;
        let id = self.leases.grant(Held { worker, work, block, deadline, unmentioned: 0 });
        let indices = self.open.get(&work).map_or(0..0, |blocks| blocks.indices(block));
        Action::Grant(Lease { id, work, indices, deadline: self.plan.lease_deadline })
    }

    fn free_block(&self) -> Option<(Work, u32)> {
        self.open.iter().find_map(|(&work, blocks)| {
            let block = blocks.unfinished().find(|&block| !self.leases.is_leased(work, block))?;
            Some((work, block))
        })
    }

    fn fill(&mut self, worker: Uuid, lease: Option<LeaseId>, slots: &[Slot], actions: &mut Vec<Action>) {
        for &slot in slots {
            let (work, index) = Work::of(slot);
            let Some(blocks) = self.open.get_mut(&work) else { continue };
            if blocks.is_filled(index).is_none() {
                continue;
            }
            blocks.fill(index);
            let block = blocks.block_of(index);
            if blocks.is_block_full(block) {
                self.leases.remove_block(work, block);
            }
            if blocks.is_full() {
                actions.push(Action::Wake);
            }
        }
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.slots_done += slots.len() as u64;
        }
        // Handed in with slots missing: somebody else may try.
        if let Some(lease) = lease.filter(|&lease| self.leases.belongs(lease, worker)) {
            self.leases.remove(lease);
            actions.push(Action::Wake);
        }
    }

    fn join(&mut self, join: Join, actions: &mut Vec<Action>) {
        let (rank, before) = (join.rank, (self.world.generation(), self.world.is_complete()));
        match self.world.join(join) {
            Ok(standing) => {
                let after = (standing.generation, standing.complete);
                actions.push(Action::Standing(standing));
                if after.0 != before.0 {
                    actions.push(Action::KeepWorld);
                }
                // Not at every join: ranks that wait for each other would wake each other without end.
                if after != before {
                    actions.push(Action::Wake);
                }
                self.ranks_told.remove(&rank);
            }
            Err(error) => actions.push(Action::Refuse(error)),
        }
    }

    fn batch(&mut self, rank: u32, learner: Uuid, step: Step) -> Action {
        if self.draining.is_some() || step.0 >= self.plan.steps {
            self.ranks_told.insert(rank);
            let reason = self.draining.clone().unwrap_or_else(|| "all steps are done".to_owned());
            return Action::Leave { reason };
        }
        if !self.world.ask(rank, learner) {
            return Action::Rejoin;
        }
        if step < self.kept_from {
            return Action::Refuse(Error::StepGone { step, kept_from: self.kept_from });
        }
        // A rank other than 0 may be a step ahead of rank 0's commit.
        if step > self.committed.next() {
            return Action::Refuse(Error::StepAhead { step, committed: self.committed });
        }
        let full = self.open.get(&Work::Training(step)).is_some_and(Blocks::is_full);
        if step < self.committed || full { Action::ServeBatch } else { Action::Wait }
    }

    fn commit(&mut self, step: Step, actions: &mut Vec<Action>) {
        if step != self.committed {
            return;
        }
        self.open.remove(&Work::Training(step));
        self.committed = step.next();
        self.open_step();
        self.open_evaluation(step.produces());
        actions.push(Action::Wake);
    }

    fn keep_checkpoint(&mut self, rank: u32, step: Step, actions: &mut Vec<Action>) {
        let kept = self.checkpoints.entry(rank).or_insert(step);
        *kept = step.max(*kept);
        let ranks = 0..self.world.size();
        let common = ranks.map(|rank| self.checkpoints.get(&rank).copied().unwrap_or(Step(0))).min();
        // Groups of the step being made are not covered by anything yet.
        let before = common.unwrap_or(Step(0)).min(self.committed);
        if before > self.kept_from {
            self.kept_from = before;
            actions.push(Action::DropGroups { before });
        }
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
        if !self.complete && self.committed.0 >= self.plan.steps && self.open.is_empty() {
            self.complete = true;
            actions.extend([Action::RunComplete, Action::Wake]);
        }
    }
}
