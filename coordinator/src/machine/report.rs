//! The state of the run, for status, metrics and logs.

use podium_grpo::{PolicyVersion, Step};
use uuid::Uuid;

use super::blocks::Blocks;
use super::{Machine, Millis, RankGroup, Schedule, Work};

/// The phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waits for the first worker and all ranks.
    Starting,
    /// Makes steps.
    Training,
    /// All steps are done, an evaluation is not.
    Evaluating,
    /// Everything is done.
    Finished,
    /// Asked to end early.
    Draining,
}

/// Slots filled, of all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Filled.
    pub ready: u32,
    /// All.
    pub wanted: u32,
}

impl Machine {
    /// The run's schedule.
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The step being made: as many are committed.
    pub const fn committed(&self) -> Step {
        self.committed
    }

    /// The newest version that is there.
    pub const fn latest(&self) -> PolicyVersion {
        self.latest
    }

    /// The learner's ranks.
    pub const fn rank_group(&self) -> &RankGroup {
        &self.ranks
    }

    /// Whether a worker is registered.
    pub fn knows(&self, worker: Uuid) -> bool {
        self.workers.contains_key(&worker)
    }

    /// Why workers and ranks should shut down, if they should.
    pub fn over(&self) -> Option<String> {
        let complete = self.complete.then(|| self.ended().unwrap_or("the run is complete").to_owned());
        complete.or_else(|| self.draining.clone())
    }

    /// Why the run ends before all its steps are made, if it does: it is drained, or an evaluation ended it.
    pub fn ending(&self) -> Option<&str> {
        self.draining.as_deref().or(self.ended())
    }

    /// Whether all steps and evaluations are done that there are to be.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether every worker has disconnected and every rank knows that the run is over.
    pub fn all_disconnected(&self) -> bool {
        self.workers.is_empty() && (0..self.ranks.size()).all(|rank| self.dismissed.contains(&rank))
    }

    /// The phase of the run.
    pub fn phase(&self) -> Phase {
        let nothing_yet = self.committed == Step(0) && self.sampling().ready == 0;
        if self.complete {
            Phase::Finished
        } else if self.draining.is_some() {
            Phase::Draining
        } else if self.committed.0 >= self.last_version().0 {
            Phase::Evaluating
        } else if nothing_yet && (self.workers.is_empty() || !self.ranks.is_complete()) {
            Phase::Starting
        } else {
            Phase::Training
        }
    }

    /// Groups of the step being made.
    pub fn sampling(&self) -> Progress {
        progress(self.open.get(&Work::Training(self.committed)))
    }

    /// Prompts of the first evaluation that is not complete.
    pub fn evaluating(&self) -> Progress {
        let evaluation = |(work, blocks)| matches!(work, &Work::Evaluation(_)).then_some(blocks);
        progress(self.open.iter().find_map(evaluation))
    }

    /// The ranks that have joined and do not know that the run is over, and the addresses of their metrics. A rank that died
    /// stays until another process takes its place: the run waits for it.
    pub fn ranks(&self) -> impl Iterator<Item = (u32, &str)> {
        self.ranks.metrics_addresses().filter(|(rank, _)| !self.dismissed.contains(rank))
    }

    /// The rank of a process, if it has one.
    pub fn rank_of(&self, learner: Uuid) -> Option<u32> {
        self.ranks.rank_of(learner)
    }

    /// Number of registered workers.
    pub fn worker_count(&self) -> u32 {
        self.workers.len() as u32
    }

    /// Workers that hold a lease.
    pub fn busy_workers(&self) -> u32 {
        self.leases.holders()
    }

    /// Groups that were accepted for steps that are not committed, with those that dynamic sampling has replaced.
    pub fn waiting_groups(&self) -> u64 {
        let training = self.open.iter().filter(|(work, _)| matches!(work, Work::Training(_)));
        training.map(|(_, blocks)| blocks.taken()).sum()
    }

    /// The workers: id, time since they were heard, leases held, slots filled.
    pub fn workers(&self, now: Millis) -> impl Iterator<Item = (Uuid, Millis, u32, u64)> {
        self.workers.iter().map(move |(&id, worker)| {
            let silent = Millis(now.0.saturating_sub(worker.last_seen.0));
            (id, silent, self.leases.of_worker(id).count() as u32, worker.slots_done)
        })
    }
}

fn progress(blocks: Option<&Blocks>) -> Progress {
    blocks.map_or(Progress::default(), |blocks| Progress { ready: blocks.settled(), wanted: blocks.len() })
}
