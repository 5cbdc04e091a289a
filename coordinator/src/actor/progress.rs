//! The progress of the run: submitted results, batches for ranks, and commits of steps.

use std::sync::Arc;
use std::time::Instant;

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::Slot;
use podium_transfer::Content;

use super::closer::{FinishedStep, add_metrics};
use super::closes::Closed;
use super::command::{BatchRequest, StepReport, Submission, Waiting};
use super::error::{Error, blocking};
use super::state::State;
use crate::machine::sequencer::{self, Commit, Counts, Reply, Submitted};
use crate::machine::{BatchReply, LeaseId, Verdict};
use crate::metrics;
use crate::reports::forms::Source;
use crate::reports::step;
use crate::store::StepRecord;
use crate::timeline::Activity;

impl State {
    /// Stores the wanted results of submissions in one write, and replies to their callers.
    pub(super) async fn submit(&mut self, waiting: Vec<Waiting>) {
        let (mut submissions, mut replies) = (Vec::new(), Vec::new());
        for Waiting { submission, reply } in waiting {
            let Submission { worker, lease, version, content, results } = submission;
            // Results of a content that was superseded meanwhile belong to another policy.
            let is_current = self.parts.policies.content(version) == Some(content);
            let worker = self.sampled_by(worker);
            submissions.push(sequencer::Submission { worker, lease, version, is_current, results });
            replies.push(reply);
        }
        match self.run.submit(self.now(), submissions).await {
            Ok(outcomes) => {
                for (outcome, reply) in outcomes.into_iter().zip(replies) {
                    drop(reply.send(outcome.map(count).map_err(Error::from)));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for reply in replies {
                    drop(reply.send(Err(Error::Shared(error.clone()))));
                }
            }
        }
    }

    /// Returns the verdicts on results that would be submitted now under a lease.
    pub(super) fn verdicts(
        &self,
        version: PolicyVersion,
        content: Content,
        lease: Option<LeaseId>,
        slots: &[Slot],
    ) -> Vec<Verdict> {
        let is_current = self.parts.policies.content(version) == Some(content);
        let verdict = |&slot: &Slot| {
            if is_current { self.run.machine().verdict_under(slot, version, lease) } else { Verdict::Refused }
        };
        slots.iter().map(verdict).collect()
    }

    /// Answers a rank that requests its share of a step; `None` until the previous step is closed.
    pub(super) async fn batch(&mut self, request: BatchRequest) -> Result<Option<BatchReply>, Error> {
        let BatchRequest { rank, learner, step, lost } = request;
        self.has_peers = true;
        self.abandon_versions(learner, lost).await?;
        match self.run.request_batch(self.now(), rank, learner, step).await? {
            Reply::Close(missed) => {
                tracing::info!("{missed} was finished before its report was lost: it is committed now");
                self.close_step(missed, None);
                Ok(None)
            }
            Reply::Wait => Ok(None),
            Reply::Ready(reply) => {
                if rank == 0 {
                    self.learner_waits = !matches!(reply, BatchReply::Ready { .. });
                }
                Ok(Some(reply))
            }
        }
    }

    /// Commits a step; returns `true` if the run is over for the rank, and `None` until the step is closed.
    pub(super) async fn commit(&mut self, report: &mut StepReport) -> Result<Option<bool>, Error> {
        let StepReport { learner, step, ref mut metrics, checkpoint } = *report;
        match self.run.commit(self.now(), Commit { learner, step, checkpoint }).await? {
            Reply::Close(step) => {
                self.rank_trouble.clear();
                self.close_step(step, Some(std::mem::take(metrics)));
                Ok(None)
            }
            Reply::Wait => Ok(None),
            Reply::Ready(over) => {
                if self.run.machine().rank_of(learner) == Some(0) && !metrics.is_empty() {
                    let (store, metrics) = (self.parts.store.clone(), std::mem::take(metrics));
                    let began = Instant::now();
                    let added = blocking(move || add_metrics(&store, step, &metrics)).await;
                    self.run.storage_mut().note_write(began, &added);
                    self.reports_behind |= added?.is_some();
                }
                Ok(Some(over))
            }
        }
    }

    /// Starts to close a step.
    fn close_step(&mut self, step: Step, metrics: Option<std::collections::BTreeMap<String, f64>>) {
        let (closer, policies) = (self.parts.closer.clone(), self.parts.policies.clone());
        let (schedule, latest) = (self.run.machine().schedule().clone(), self.run.machine().latest());
        let began = Instant::now();
        let seconds = began.duration_since(self.last_commit).as_secs_f64();
        let anatomy = self.parts.timeline.anatomy(self.last_commit, began);
        let finished = FinishedStep { step, metrics, seconds, anatomy, steps: schedule.steps };
        self.closes.start_step(move || {
            let closed = closer.close_step(finished);
            // The folders that are needed after the commit are known before it, because the version of the
            // step is published.
            let result = closed.map(|record| (record, policies.prune(&schedule, latest).err()));
            Closed::Step { step, began, seconds, result }
        });
    }

    /// Handles a job that has ended, and the commands that waited for it.
    pub(super) async fn closed(&mut self, closed: Closed) {
        match closed {
            Closed::Step { step, began, seconds, result } => {
                self.run.storage_mut().note_write(began, &result);
                match result {
                    Ok((record, pruned)) => {
                        self.step_closed(step, (began, seconds), &record).await;
                        self.note(pruned.as_ref());
                        for command in self.closes.take_parked() {
                            self.handle(command).await;
                        }
                    }
                    Err(error) => {
                        self.run.close_failed();
                        let error = Arc::new(error);
                        for command in self.closes.take_parked() {
                            command.fail(step, error.clone());
                        }
                    }
                }
            }
            Closed::Evaluation { version, began, result } => {
                self.run.storage_mut().note_write(began, &result);
                self.evaluation_closed(version, result).await;
            }
        }
    }

    async fn step_closed(&mut self, step: Step, (began, seconds): (Instant, f64), record: &StepRecord) {
        // The time of the close belongs to the next step, because the record does not contain it.
        self.last_commit = began;
        self.parts.timeline.forget_before(began);
        self.parts.timeline.record(Activity::Commit, began);
        self.run.step_closed(self.now()).await;
        self.forms.note(Source::Step(step.0), &record.row, &record.samples);
        self.last_step = step::numbers(&record.row);
        let groups = self.run.machine().schedule().prompts_per_step;
        metrics::step_committed(groups, seconds, &self.last_step);
        self.update_advice();
        let added = self.reports.add_step(record);
        self.reports_behind |= added.is_err();
        self.note(added.err().as_ref());
    }
}

/// Counts the outcome of a submission in the metrics, and returns the counts of training and evaluation together.
fn count(submitted: Submitted) -> Counts {
    let (training, evaluation) = (submitted.training, submitted.evaluation);
    metrics::outcomes(true, training.accepted, training.repeated, training.refused);
    metrics::outcomes(false, evaluation.accepted, evaluation.repeated, evaluation.refused);
    metrics::completions(submitted.volume.0, submitted.volume.1);
    Counts {
        accepted: training.accepted + evaluation.accepted,
        repeated: training.repeated + evaluation.repeated,
        refused: training.refused + evaluation.refused,
    }
}
