//! What is around the run: which processes can be scraped, who waits for whom, how much room the disk has.

use std::time::Instant;

use crate::discovery::Target;
use crate::machine::Phase;
use crate::metrics;
use crate::scaling::{Advice, Shape};

use super::state::State;

impl State {
    /// Brings the list of processes to scrape up to date.
    pub(super) fn list_processes(&self) {
        let machine = &self.parts.machine;
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

    /// Notes who has worked and who has waited since it was last noted. To be called before anything changes.
    pub(super) fn note_load(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.load_noted).as_secs_f64();
        self.load_noted = now;
        let machine = &self.parts.machine;
        if machine.phase() == Phase::Training {
            let learner = machine.world().is_complete().then_some(self.learner_waits);
            self.load.pass(seconds, machine.busy_workers(), machine.worker_count(), learner);
        }
    }

    /// Draws the conclusions from a step that was committed.
    pub(super) fn weigh_load(&mut self) {
        self.load.step_done();
        self.advice = self.load.advice(self.shape());
        if let Some(advice) = &self.advice {
            metrics::scaling(advice, self.parts.machine.worker_count());
        }
    }

    fn shape(&self) -> Shape {
        let machine = &self.parts.machine;
        let plan = machine.plan();
        Shape {
            workers: machine.worker_count(),
            ranks: machine.world().size(),
            blocks: plan.prompts_per_step.div_ceil(plan.prompts_per_lease.max(1)),
            max_policy_lag: plan.max_policy_lag,
        }
    }

    /// What was concluded last, and how many workers there are now.
    pub(super) fn advice(&self) -> Option<(Advice, u32)> {
        Some((self.advice?, self.parts.machine.worker_count()))
    }

    /// Sets the gauges of what changes by itself.
    pub(super) fn look_around(&self) {
        metrics::standing(&self.parts.machine, self.now());
        // Ranks leave without saying so.
        self.list_processes();
        // A disk that does not say is no reason to stop.
        if let Ok(disk) = nix::sys::statvfs::statvfs(&self.parts.out) {
            let unit = disk.fragment_size();
            metrics::disk(unit.saturating_mul(disk.blocks_available()), unit.saturating_mul(disk.blocks()));
        }
    }
}
