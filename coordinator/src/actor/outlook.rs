//! What others see of the run: reports, status, and when it is time to go.

use std::time::{Duration, Instant};

use podium_grpo::PolicyVersion;
use podium_proto::v1;
use uuid::Uuid;

use super::state::State;
use super::{Error, Outcome, blocking, closing};
use crate::machine::{Event, Millis, Phase};
use crate::metrics;
use crate::reports::forms::Source;
use crate::reports::watch::Findings;
use crate::reports::{Contents, evaluation, step, summary};
use crate::scaling::{Advice, Bottleneck};
use crate::store::EvaluationRecord;

/// How long everybody has to hear that the run is complete.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long after a failure of the disk what is left to do is tried again.
const RETRY: Duration = Duration::from_secs(5);

impl State {
    /// Does what an earlier failure, or the start, has left to be done.
    pub(super) async fn catch_up(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        if let Err(error) = self.try_to_catch_up().await {
            self.retry_at = Some(Instant::now() + RETRY);
            self.note(Some(error));
        }
    }

    async fn try_to_catch_up(&mut self) -> Result<(), Error> {
        while let Some(version) = self.next_to_close() {
            if self.lost.contains_key(&version) {
                self.to_close.remove(&version);
                self.step(Event::EvaluationJudged { version, end: None }).await;
                continue;
            }
            let (store, curriculum) = (self.parts.store.clone(), self.parts.curriculum.clone());
            let (watch, recorded) = (self.parts.watch.clone(), self.parts.answers.clone());
            let close =
                move || closing::close_evaluation(&store, &curriculum, &watch, recorded.as_ref(), version);
            let (record, findings) = self.write(close).await?;
            self.to_close.remove(&version);
            self.forms.note(Source::Evaluation(version.0), &record.row, &record.samples);
            self.show_evaluation(version, &record);
            self.take_findings(findings);
            let end =
                self.findings.ended_by.clone().filter(|(by, _)| *by == version).map(|(_, reason)| reason);
            self.step(Event::EvaluationJudged { version, end }).await;
            let added = self.reports.add_evaluation(&record);
            self.reports_behind |= added.is_err();
            added?;
        }
        if self.reports_behind {
            let store = self.parts.store.clone();
            let (steps, evaluations) =
                blocking(move || Ok::<_, Error>((store.steps()?, store.evaluations()?))).await?;
            let store = self.parts.store.clone();
            self.lost = blocking(move || Ok::<_, Error>(store.lost_evaluations()?)).await?;
            if let Some(last) = steps.last() {
                self.last_step = step::numbers(&last.row);
            }
            if let Some((&version, record)) = evaluations.last_key_value() {
                self.show_evaluation(version, record);
            }
            self.take_findings(self.parts.watch.findings(&evaluations));
            let evaluated = evaluations
                .iter()
                .map(|(version, one)| (Source::Evaluation(version.0), &one.row, one.samples.as_slice()));
            let trained =
                (0..).zip(&steps).map(|(step, one)| (Source::Step(step), &one.row, one.samples.as_slice()));
            self.forms.restore(evaluated.chain(trained));
            self.parts.baselines.write(&self.parts.out)?;
            self.reports.rewrite(&Contents { steps, evaluations: evaluations.into_values().collect() })?;
            self.reports_behind = false;
        }
        if self.finish_wanted {
            let store = self.parts.store.clone();
            let evaluations = blocking(move || Ok::<_, Error>(store.evaluations()?)).await?;
            let steps = self.parts.machine.last_version().0;
            let outcome = summary::Outcome {
                steps,
                ended: self.parts.machine.ended(),
                evaluations: &evaluations,
                lost: &self.lost,
                findings: &self.findings,
            };
            summary::write_finished(&self.parts.out, &self.parts.identity, &outcome, &self.parts.baselines)?;
            self.finish_wanted = false;
            tracing::info!("all {steps} steps and {} evaluations are done", evaluations.len());
        }
        Ok(())
    }

    /// The evaluation to close now: all before it are closed, since the watch looks back on them.
    fn next_to_close(&self) -> Option<PolicyVersion> {
        self.to_close.first().copied().filter(|version| self.parts.machine.to_judge() == Some(*version))
    }

    fn take_findings(&mut self, findings: Findings) {
        match (&self.findings.warning, &findings.warning) {
            (None, Some(warning)) => tracing::warn!("{warning}"),
            (Some(_), None) => tracing::info!("the reward no longer rises without the held-out ranking"),
            _ => {}
        }
        metrics::findings(&findings);
        self.findings = findings;
    }

    fn show_evaluation(&mut self, version: PolicyVersion, record: &EvaluationRecord) {
        let figures = evaluation::numbers(&record.row);
        metrics::evaluation_complete(&figures);
        self.last_evaluation = Some((version, figures));
    }

    /// Whether it is time to go.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let machine = &self.parts.machine;
        machine.over()?;
        let unfinished = self.finish_wanted || self.reports_behind || self.next_to_close().is_some();
        let since = *self.over_since.get_or_insert_with(Instant::now);
        let patience = if machine.is_complete() {
            FAREWELL
        } else {
            // Whoever holds a lease hands it in, or is silent for as long as a lease lives.
            Duration::from_millis(machine.plan().lease_deadline.0)
        };
        let alone = self.met_somebody && machine.everyone_left();
        if unfinished || !(alone || since.elapsed() >= patience) {
            return None;
        }
        let drained = || Outcome::Drained { reason: machine.over().unwrap_or_default() };
        Some(if machine.is_complete() { Outcome::Complete } else { drained() })
    }

    pub(super) fn status(&self) -> v1::RunStatus {
        let machine = &self.parts.machine;
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
        let mut warnings: Vec<String> = self.trouble.iter().chain(&self.findings.warning).cloned().collect();
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
            learner_ranks: machine.world().joined(),
            last_step_metrics: self.last_step.clone(),
            last_evaluation: evaluation.map(|(_, figures)| figures.clone()).unwrap_or_default(),
            last_evaluation_version: evaluation.map(|(version, _)| version.0),
            warnings,
            best_version: best.map(|(version, _)| version.0),
            best_score: best.map(|(_, score)| score).unwrap_or_default(),
            best_by: self.findings.best_by.clone(),
            scaling: self.advice().map(scaling),
            ranks: self.rank_statuses(),
            oldest_lease: self.oldest_lease(),
            ending: machine.ending().unwrap_or_default().to_owned(),
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
