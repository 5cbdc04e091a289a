//! The environment of the run: processes to scrape, load of workers and learner, free disk space.

use std::time::Instant;

use crate::discovery::Target;
use crate::machine::Phase;
use crate::metrics;
use crate::scaling::{Advice, Shape};

use super::state::State;

impl State {
    /// Updates the list of processes to scrape.
    pub(super) fn list_processes(&self) {
        let machine = self.run.machine();
        let workers = self.profiles.iter().filter(|(worker, _)| machine.knows(**worker));
        let workers = workers.map(|(worker, profile)| {
            let name: String = worker.simple().to_string().chars().take(8).collect();
            (profile.metrics_address.as_str(), "worker", format!("worker-{name}"))
        });
        let ranks = machine.ranks().map(|(rank, address)| (address, "learner", format!("learner-{rank}")));
        let there = workers.chain(ranks).filter(|(address, ..)| !address.is_empty());
        let target = |(address, role, process): (&str, &'static str, String)| Target {
            address: address.to_owned(),
            role,
            process,
        };
        self.parts.discovery.set_others(&self.parts.identity.run_name, there.map(target).collect());
    }

    /// Records the load since the last call. Must be called before any change.
    pub(super) fn note_load(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.load_noted).as_secs_f64();
        self.load_noted = now;
        let machine = self.run.machine();
        if machine.phase() == Phase::Training {
            let learner = machine.rank_group().is_complete().then_some(self.learner_waits);
            self.load.pass(seconds, machine.busy_workers(), machine.worker_count(), learner);
        }
    }

    /// Advises on the number of workers after a committed step.
    pub(super) fn update_advice(&mut self) {
        self.load.step_done();
        self.advice = self.load.advice(self.shape());
        if let Some(advice) = &self.advice {
            metrics::scaling(advice, self.run.machine().worker_count());
        }
    }

    fn shape(&self) -> Shape {
        let machine = self.run.machine();
        let schedule = machine.schedule();
        Shape {
            workers: machine.worker_count(),
            ranks: machine.rank_group().size(),
            blocks: schedule.prompts_per_step.div_ceil(schedule.prompts_per_lease.max(1)),
            max_policy_lag: schedule.max_policy_lag,
        }
    }

    /// Returns the last advice and the current number of workers.
    pub(super) fn advice(&self) -> Option<(Advice, u32)> {
        Some((self.advice?, self.run.machine().worker_count()))
    }

    /// Sets the gauges that change with time.
    pub(super) fn update_gauges(&self) {
        metrics::run_state(self.run.machine(), self.now());
        // Ranks shut down without a notice.
        self.list_processes();
        // These two gauges are not set if the file system does not report the values.
        if let Ok(disk) = nix::sys::statvfs::statvfs(&self.parts.out) {
            let unit = disk.fragment_size();
            metrics::disk(unit.saturating_mul(disk.blocks_available()), unit.saturating_mul(disk.blocks()));
        }
    }
}
