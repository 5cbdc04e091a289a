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
mod leases;
mod plan;
mod report;
mod world;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Add, Range};

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::Slot;
use uuid::Uuid;

use blocks::Blocks;
pub use leases::LeaseId;
use leases::{Held, Leases};
pub use plan::{Plan, Work};
pub use report::{Phase, Progress};
pub use world::{Join, Standing, World};

/// Leases that a worker holds at once: one to sample, and one that it is handing in.
const MOST_LEASES: usize = 2;

/// A lease that so many heartbeats of its worker in a row do not name never reached it.
const UNHEARD_AFTER: u32 = 2;

/// Milliseconds on a clock that only goes forward; where it starts does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Add for Millis {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A worker of this run introduced itself.
    WorkerRegistered {
        /// Who.
        worker: Uuid,
    },
    /// A worker left.
    WorkerLeft {
        /// Who.
        worker: Uuid,
    },
    /// A worker said that it lives and what it works on.
    Heartbeat {
        /// Who.
        worker: Uuid,
        /// The leases that it believes to hold and that this process gave out.
        leases: Vec<LeaseId>,
    },
    /// A worker asks for work.
    LeaseWanted {
        /// Who.
        worker: Uuid,
    },
    /// Results that [`Machine::verdict`] wanted are durable.
    Scored {
        /// Who handed them in.
        worker: Uuid,
        /// Under which lease, if this process gave it out.
        lease: Option<LeaseId>,
        /// What they fill.
        slots: Vec<Slot>,
    },
    /// A rank joins, or asks again whether all are there.
    RankJoined(Join),
    /// A rank asks for its share of a step.
    BatchWanted {
        /// Its rank.
        rank: u32,
        /// Its process.
        learner: Uuid,
        /// The step it will train.
        step: Step,
    },
    /// A policy version is complete and durable.
    VersionPublished {
        /// Which.
        version: PolicyVersion,
    },
    /// A step that [`Machine::check_commit`] found fresh is durable.
    StepCommitted {
        /// Which.
        step: Step,
    },
    /// A rank's checkpoint covers every step before this one, and that is durable.
    CheckpointKept {
        /// Which rank.
        rank: u32,
        /// The step it continues with.
        step: Step,
    },
    /// A rank was told that the run is over.
    RankTold {
        /// Which rank.
        rank: u32,
    },
    /// Somebody ends the run early.
    DrainWanted {
        /// Why, for those who have to leave.
        reason: String,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done about it. The first seven answer whoever caused the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Work for the worker.
    Grant(Lease),
    /// Nothing now; ask again after [`Action::Wake`].
    Wait,
    /// The run is over.
    Leave {
        /// Why.
        reason: String,
    },
    /// Leases of a heartbeat that are not the worker's any more.
    Lost(Vec<LeaseId>),
    /// Where a joining rank stands.
    Standing(Standing),
    /// The step is complete: its groups can be read.
    ServeBatch,
    /// The rank has to join first.
    Rejoin,
    /// The event is refused.
    Refuse(Error),
    /// Those who wait should ask again.
    Wake,
    /// A lease was not kept alive.
    LeaseExpired(LeaseId),
    /// A worker has not spoken for too long.
    WorkerLost(Uuid),
    /// The ranks came together: their world is to be kept.
    KeepWorld,
    /// Every held-out prompt of a version is answered.
    EvaluationComplete(PolicyVersion),
    /// No rank will ask for groups of steps before this one.
    DropGroups {
        /// The first step to keep.
        before: Step,
    },
    /// All steps and evaluations are done.
    RunComplete,
}

/// Work that was given to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// Of what.
    pub work: Work,
    /// Which slots of it.
    pub indices: Range<u32>,
    /// Time left to hand it in or to say that one lives.
    pub deadline: Millis,
}

/// What becomes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fills an empty slot.
    Wanted,
    /// The slot is filled already.
    Repeated,
    /// There is no such slot, or it wants another policy version.
    Refused,
}

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A worker that has not registered, or has not spoken for too long.
    #[error("worker {worker} is not registered with this coordinator: register again")]
    UnknownWorker {
        /// Who.
        worker: Uuid,
    },
    /// A learner process that is no rank.
    #[error("learner {learner} is no rank of this run: join again")]
    UnknownLearner {
        /// Who.
        learner: Uuid,
    },
    /// A rank that its own world does not have.
    #[error("rank {rank} of a world of {world_size}: expected a rank from 0 to one below the world's size")]
    Rank {
        /// The rank.
        rank: u32,
        /// Its world's size.
        world_size: u32,
    },
    /// Ranks that do not agree.
    #[error(
        "rank {rank} expects {world_size} ranks, those that joined before it {expected}: start all ranks with the same --world-size"
    )]
    WorldSize {
        /// The rank.
        rank: u32,
        /// What it expects.
        world_size: u32,
        /// What the others expect.
        expected: u32,
    },
    /// A step that nobody should ask for any more.
    #[error("the groups of step {} are gone: all ranks had reported checkpoints that continue with step {}; start the rank with the --state folder that holds its checkpoint", step.0, kept_from.0)]
    StepGone {
        /// The step asked for.
        step: Step,
        /// The first that is kept.
        kept_from: Step,
    },
    /// A step that comes after the next one.
    #[error("step {} was named, but the run is at step {}: the learner's --state folder belongs to another run, or the coordinator's --out folder does", step.0, committed.0)]
    StepAhead {
        /// The step named.
        step: Step,
        /// The step being made.
        committed: Step,
    },
    /// A commit before its groups were there.
    #[error("step {} cannot be committed: only {ready} of its {wanted} groups are there", step.0)]
    NotSampled {
        /// The step.
        step: Step,
        /// Groups that are there.
        ready: u32,
        /// Groups of the step.
        wanted: u32,
    },
    /// A commit before its policy version was there.
    #[error("step {} cannot be committed: publish {version} first", step.0)]
    NotPublished {
        /// The step.
        step: Step,
        /// The version it produces.
        version: PolicyVersion,
    },
    /// A version that comes after the next one.
    #[error("{version} cannot be published: the run is at step {}, which produces {}", committed.0, committed.produces())]
    VersionAhead {
        /// The version.
        version: PolicyVersion,
        /// The step being made.
        committed: Step,
    },
}

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
