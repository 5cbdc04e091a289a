//! Work that remains after a disk error or a restart: closing evaluations and writing the report files.

use std::time::{Duration, Instant};

use podium_grpo::PolicyVersion;

use super::closes::Closed;
use super::error::{Error, blocking};
use super::state::State;
use crate::metrics;
use crate::reports::forms::Source;
use crate::reports::watch::Findings;
use crate::reports::{Contents, evaluation, step, summary};
use crate::store::EvaluationRecord;

/// Time between a disk error and the next attempt.
const RETRY: Duration = Duration::from_secs(5);

impl State {
    /// Does the remaining work, unless it failed recently.
    pub(super) async fn catch_up(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        self.close_evaluation();
        // A job may have stored a record that the files do not contain yet.
        if !self.closes.is_idle() {
            return;
        }
        if let Err(error) = self.write_files().await {
            self.retry_at = Some(Instant::now() + RETRY);
            self.note(Some(&error));
        }
    }

    /// Starts to close the next evaluation, if it is due.
    fn close_evaluation(&mut self) {
        let Some(version) = self.run.machine().evaluation_to_close() else { return };
        let closer = self.parts.closer.clone();
        let began = Instant::now();
        self.closes.start_evaluation(version, move || Closed::Evaluation {
            version,
            began,
            result: closer.close_evaluation(version),
        });
    }

    /// Accepts an evaluation whose job has ended.
    pub(super) async fn evaluation_closed(
        &mut self,
        version: PolicyVersion,
        result: Result<(EvaluationRecord, Findings), Error>,
    ) {
        let (record, findings) = match result {
            Ok(closed) => closed,
            Err(error) => {
                self.retry_at = Some(Instant::now() + RETRY);
                self.note(Some(&error));
                return;
            }
        };
        self.forms.note(Source::Evaluation(version.0), &record.row, &record.samples);
        self.show_evaluation(version, &record);
        self.take_findings(findings);
        let end = self.findings.ended_by.clone().filter(|(by, _)| *by == version).map(|(_, reason)| reason);
        self.run.evaluation_closed(self.now(), version, end).await;
        let added = self.reports.add_evaluation(&record);
        self.reports_behind |= added.is_err();
        self.note(added.err().as_ref());
        self.close_evaluation();
    }

    /// Rewrites the report files if they are behind the store, and writes finished.json if the run is
    /// complete.
    async fn write_files(&mut self) -> Result<(), Error> {
        if self.reports_behind {
            let store = self.parts.store.clone();
            let (steps, evaluations) =
                blocking(move || Ok::<_, Error>((store.steps()?, store.evaluations()?))).await?;
            let store = self.parts.store.clone();
            self.abandoned = blocking(move || Ok::<_, Error>(store.abandoned_evaluations()?)).await?;
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
            let steps = self.run.machine().last_version().0;
            let finished = summary::Finished {
                steps,
                ended: self.run.machine().ended(),
                evaluations: &evaluations,
                abandoned: &self.abandoned,
                findings: &self.findings,
            };
            summary::write_finished(&self.parts.out, &self.parts.identity, &finished, &self.parts.baselines)?;
            self.finish_wanted = false;
            tracing::info!("all {steps} steps and {} evaluations are done", evaluations.len());
        }
        Ok(())
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
        let values = evaluation::numbers(&record.row);
        metrics::evaluation_complete(&values);
        self.last_evaluation = Some((version, values));
    }
}
