//! Warnings about processes that make no progress: silent ranks, and leases that are held too long.

use std::collections::BTreeSet;

use podium_proto::v1;
use uuid::Uuid;

use super::state::State;
use crate::machine::{OldLease, RankHealth, Work};
use crate::metrics;

impl State {
    /// Updates the warnings; logs new warnings and those that have ended.
    pub(super) fn update_concerns(&mut self) {
        let now = self.now();
        let (ranks, leases) = (self.run.machine().rank_health(now), self.run.machine().old_leases(now));
        let silent = ranks.iter().filter(|rank| rank.silent).count();
        metrics::concerns(silent, leases.first().map_or(0, |lease| lease.age.0));
        let deadline = self.run.machine().schedule().lease_deadline.0;
        let silent = ranks.iter().filter(|rank| rank.silent).map(|rank| silence(rank, deadline));
        let waiting = self.parts.external.warnings();
        // A worker holds its lease while the run waits for a reward.
        let is_stalled = |lease: &&OldLease| {
            lease.stalled && (waiting.is_empty() || !matches!(lease.work, Work::Training(_)))
        };
        let stalled = leases.iter().filter(is_stalled).map(|lease| self.stall(lease));
        let found: BTreeSet<String> = silent.chain(stalled).chain(waiting.iter().cloned()).collect();
        for new in found.difference(&self.concerns) {
            tracing::warn!("{new}");
        }
        for gone in self.concerns.difference(&found) {
            tracing::info!("resolved: {gone}");
        }
        self.concerns = found;
    }

    pub(super) fn rank_statuses(&self) -> Vec<v1::RankStatus> {
        let status = |rank: RankHealth| v1::RankStatus {
            rank: rank.rank,
            last_heard_ms: rank.unheard.0,
            joined: rank.joined,
            silent: rank.silent,
        };
        self.run.machine().rank_health(self.now()).into_iter().map(status).collect()
    }

    pub(super) fn oldest_lease(&self) -> Option<v1::LeaseStatus> {
        let oldest = self.run.machine().old_leases(self.now()).into_iter().next()?;
        Some(v1::LeaseStatus {
            worker_id: oldest.worker.to_string(),
            host: self.host(oldest.worker),
            work: describe(oldest.work),
            age_ms: oldest.age.0,
            stalled: oldest.stalled,
        })
    }

    fn stall(&self, lease: &OldLease) -> String {
        format!(
            "worker {} on {} holds a lease of {} far longer than other leases take: it sends heartbeats and submits nothing; \
             stop that worker, and another one receives the lease",
            lease.worker,
            self.host(lease.worker),
            describe(lease.work)
        )
    }

    fn host(&self, worker: Uuid) -> String {
        let host = self.profiles.get(&worker).map(|profile| profile.host.as_str());
        host.filter(|host| !host.is_empty()).unwrap_or("an unknown host").to_owned()
    }
}

fn silence(rank: &RankHealth, deadline_ms: u64) -> String {
    let (which, seconds) = (rank.rank, deadline_ms as f64 / 1e3);
    if rank.joined || rank.heard {
        format!(
            "learner rank {which} has sent no report for {seconds} s (network.lease_deadline_ms): its process is dead, stopped \
             or unreachable, and the run waits for it"
        )
    } else {
        format!("learner rank {which} has not joined: the run waits for it")
    }
}

fn describe(work: Work) -> String {
    match work {
        Work::Training(step) => step.to_string(),
        Work::Evaluation(version) => format!("the evaluation of {version}"),
    }
}
