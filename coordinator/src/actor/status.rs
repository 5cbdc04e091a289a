//! The status of the run, and the time at which the coordinator exits.

use std::time::{Duration, Instant};

use podium_proto::v1;
use uuid::Uuid;

use super::state::{ExitReason, State};
use crate::machine::{Millis, Phase};
use crate::scaling::{Advice, Bottleneck};

/// Time that workers and ranks have to learn that the run is complete.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl State {
    /// Returns the reason why the coordinator exits, once it should exit.
    pub(super) fn exit(&mut self) -> Option<ExitReason> {
        let machine = self.run.machine();
        let reason = machine.over()?;
        let is_unfinished = self.finish_wanted
            || self.reports_behind
            || !self.closes.is_idle()
            || machine.evaluation_to_close().is_some();
        let since = *self.over_since.get_or_insert_with(Instant::now);
        let timeout = if machine.is_complete() {
            DISCONNECT_TIMEOUT
        } else {
            // A worker submits its leases within this time, or has been silent for a lease deadline.
            Duration::from_millis(machine.schedule().lease_deadline.0)
        };
        let is_alone = self.has_peers && machine.all_disconnected();
        if is_unfinished || !(is_alone || since.elapsed() >= timeout) {
            return None;
        }
        Some(if machine.is_complete() { ExitReason::Complete } else { ExitReason::Drained { reason } })
    }

    pub(super) fn status(&self) -> v1::RunStatus {
        let machine = self.run.machine();
        let (sampling, evaluating) = (machine.sampling(), machine.evaluating());
        let worker = |(id, silent, leases, groups_done): (Uuid, Millis, u32, u64)| {
            let profile = self.profiles.get(&id).cloned().unwrap_or_default();
            v1::WorkerStatus {
                worker_id: id.to_string(),
                device: profile.device,
                host: profile.host,
                leases,
                groups_done,
                last_seen_ms: silent.0,
                metrics_address: profile.metrics_address,
            }
        };
        let workers: Vec<_> = machine.workers(self.now()).map(worker).collect();
        let trouble = self.run.storage().trouble().into_iter();
        let mut warnings: Vec<String> = trouble.chain(&self.findings.warning).cloned().collect();
        warnings.extend(self.forms.warning().cloned());
        warnings.extend(self.rank_trouble.values().chain(&self.concerns).cloned());
        warnings.extend(self.offences.lines().cloned());
        warnings.extend(self.version_warnings());
        if workers.is_empty() && machine.over().is_none() {
            warnings.push("no rollout worker is connected".to_owned());
        }
        let evaluation = self.last_evaluation.as_ref();
        let best = self.findings.best;
        v1::RunStatus {
            run_id: self.parts.identity.run_id.to_string(),
            run_name: self.parts.identity.run_name.clone(),
            phase: phase(machine.phase()).into(),
            step: machine.committed().0,
            steps: machine.last_version().0,
            policy_version: machine.latest().0,
            groups_ready: sampling.ready,
            groups_wanted: sampling.wanted,
            evaluation_ready: evaluating.ready,
            evaluation_wanted: evaluating.wanted,
            workers,
            learner_ranks: machine.rank_group().joined(),
            last_step_metrics: self.last_step.clone(),
            last_evaluation: evaluation.map(|(_, values)| values.clone()).unwrap_or_default(),
            last_evaluation_version: evaluation.map(|(version, _)| version.0),
            warnings,
            best_version: best.map(|(version, _)| version.0),
            best_score: best.map(|(_, score)| score).unwrap_or_default(),
            best_by: self.findings.best_by.clone(),
            scaling: self.advice().map(scaling),
            ranks: self.rank_statuses(),
            oldest_lease: self.oldest_lease(),
            ending: machine.ending().unwrap_or_default().to_owned(),
            rewards: self.parts.external.statuses(),
            evaluated_part: self.parts.baselines.part().to_string(),
        }
    }
}

fn scaling((advice, workers): (Advice, u32)) -> v1::Scaling {
    let bottleneck = match advice.bottleneck {
        Bottleneck::Workers => v1::Bottleneck::Workers,
        Bottleneck::Learner => v1::Bottleneck::Learner,
        Bottleneck::Neither => v1::Bottleneck::Unspecified,
    };
    v1::Scaling {
        worker_idle: advice.worker_idle,
        learner_idle: advice.learner_idle,
        bottleneck: bottleneck.into(),
        more_workers: i64::from(advice.workers) - i64::from(workers),
        step_seconds: advice.step_seconds,
        step_seconds_then: advice.step_seconds_then,
    }
}

const fn phase(phase: Phase) -> v1::RunPhase {
    match phase {
        Phase::Starting => v1::RunPhase::Starting,
        Phase::Training => v1::RunPhase::Training,
        Phase::Evaluating => v1::RunPhase::Evaluating,
        Phase::Finished => v1::RunPhase::Finished,
        Phase::Draining => v1::RunPhase::Draining,
    }
}
