//! The state of the run, for status, metrics and logs.

use podium_grpo::{PolicyVersion, Step};
use uuid::Uuid;

use super::blocks::Blocks;
use super::{Machine, Millis, RankGroup, Schedule, Work};

/// The phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the first worker and all ranks.
    Starting,
    /// Making steps.
    Training,
    /// All steps are done, but not all evaluations.
    Evaluating,
    /// All steps and evaluations are done.
    Finished,
    /// Ending early on request.
    Draining,
}

/// Number of filled slots among all slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Number of filled slots.
    pub ready: u32,
    /// Number of all slots.
    pub wanted: u32,
}

impl Machine {
    /// Returns the run's schedule.
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Returns the current step, which is also the number of committed steps.
    pub const fn committed(&self) -> Step {
        self.committed
    }

    /// Returns the newest published version.
    pub const fn latest(&self) -> PolicyVersion {
        self.latest
    }

    /// Returns the learner's ranks.
    pub const fn rank_group(&self) -> &RankGroup {
        &self.ranks
    }

    /// Returns whether a worker is registered.
    pub fn knows(&self, worker: Uuid) -> bool {
        self.workers.contains_key(&worker)
    }

    /// Returns the reason why workers and ranks should shut down, if they should.
    pub fn over(&self) -> Option<String> {
        let complete = self.complete.then(|| self.ended().unwrap_or("the run is complete").to_owned());
        complete.or_else(|| self.draining.clone())
    }

    /// Returns the reason why the run ends before all its steps, if it does: a drain, or an evaluation.
    pub fn ending(&self) -> Option<&str> {
        self.draining.as_deref().or(self.ended())
    }

    /// Returns whether all steps and evaluations of the run are done.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns whether every worker has disconnected and every rank knows that the run is over.
    pub fn all_disconnected(&self) -> bool {
        self.workers.is_empty() && (0..self.ranks.size()).all(|rank| self.dismissed.contains(&rank))
    }

    /// Returns the phase of the run.
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

    /// Returns the progress of the groups of the current step.
    pub fn sampling(&self) -> Progress {
        progress(self.open.get(&Work::Training(self.committed)))
    }

    /// Returns the progress of the first incomplete evaluation.
    pub fn evaluating(&self) -> Progress {
        let evaluation = |(work, blocks)| matches!(work, &Work::Evaluation(_)).then_some(blocks);
        progress(self.open.iter().find_map(evaluation))
    }

    /// Returns the ranks that have joined and do not know that the run is over, with the addresses of their
    /// metrics. A rank that died is included until another process replaces it, because the run waits for it.
    pub fn ranks(&self) -> impl Iterator<Item = (u32, &str)> {
        self.ranks.metrics_addresses().filter(|(rank, _)| !self.dismissed.contains(rank))
    }

    /// Returns the rank of a process, if it has one.
    pub fn rank_of(&self, learner: Uuid) -> Option<u32> {
        self.ranks.rank_of(learner)
    }

    /// Returns the number of registered workers.
    pub fn worker_count(&self) -> u32 {
        self.workers.len() as u32
    }

    /// Returns the number of workers that hold a lease.
    pub fn busy_workers(&self) -> u32 {
        self.leases.holders()
    }

    /// Returns the number of accepted groups of uncommitted steps, including groups that dynamic sampling has
    /// replaced.
    pub fn waiting_groups(&self) -> u64 {
        let training = self.open.iter().filter(|(work, _)| matches!(work, Work::Training(_)));
        training.map(|(_, blocks)| blocks.taken()).sum()
    }

    /// Returns the workers: id, time since the last call, number of leases, number of filled slots.
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
