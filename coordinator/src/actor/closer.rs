//! Computes the records of steps and evaluations from stored data, and stores them. All functions block.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use podium_grpo::{Group, PolicyVersion, Step};
use podium_proto::convert::{Slot, TryFromMessage};
use podium_proto::v1;
use podium_recsys::diagnostics::Answer;
use serde_json::Value;

use super::error::Error;
use crate::curriculum::Curriculum;
use crate::machine::Work;
use crate::reports::answers::{Answered, Answers};
use crate::reports::parts::parts;
use crate::reports::recording::Recording;
use crate::reports::watch::{Findings, Watch};
use crate::reports::{evaluation, likelihood, samples, step};
use crate::store::{EvaluationRecord, Row, StepRecord, Store};

/// A step that rank 0 has finished.
#[derive(Debug)]
pub struct FinishedStep {
    /// The step.
    pub step: Step,
    /// The metrics that rank 0 reported; `None` if its report was lost.
    pub metrics: Option<BTreeMap<String, f64>>,
    /// Seconds since the previous step.
    pub seconds: f64,
    /// The anatomy of this time: see [`crate::timeline::Timeline::anatomy`].
    pub anatomy: BTreeMap<String, f64>,
    /// Number of steps of the run.
    pub steps: u64,
}

/// Creates and stores the records of steps and evaluations. A call may take long. It can be repeated after a
/// crash at any point, and the record is durable on return.
pub trait Closer: fmt::Debug + Send + Sync {
    /// Closes a step whose groups are all stored.
    fn close_step(&self, finished: FinishedStep) -> Result<StepRecord, Error>;

    /// Closes an evaluation whose answers are all stored. Evaluations are closed in order of version.
    fn close_evaluation(&self, version: PolicyVersion) -> Result<(EvaluationRecord, Findings), Error>;
}

/// Creates records from the stored groups and answers.
#[derive(Debug)]
pub struct Records {
    /// The store of groups, answers and records.
    pub store: Arc<Store>,
    /// The prompts of slots.
    pub curriculum: Arc<Curriculum>,
    /// Compares the ranking metrics with the reward.
    pub watch: Watch,
    /// Recording of the steps' groups, if enabled.
    pub recording: Option<Recording>,
    /// Recording of held-out answers, if enabled.
    pub answers: Option<Answers>,
}

impl Closer for Records {
    fn close_step(&self, finished: FinishedStep) -> Result<StepRecord, Error> {
        let FinishedStep { step, metrics, seconds, anatomy, steps } = finished;
        let Self { store, curriculum, .. } = self;
        let tokens_before = match step.0.checked_sub(1) {
            Some(before) => store.step(Step(before))?.map_or(0, |record| tokens(&record.row)),
            None => 0,
        };
        let work = Work::Training(step);
        let (mut groups, mut answers, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for message in store.groups(step)? {
            let slot = work.slot(message.index, message.attempt);
            let case = curriculum.case(slot)?;
            let task = curriculum.task();
            // The values that the group was graded with.
            let built_in = task.rewards().names().len() - task.rewards().external().len();
            let grade = |(completion, reward): (&v1::Completion, &v1::Reward)| {
                let external = reward.terms.get(built_in..).unwrap_or_default().to_vec();
                task.grade_with(&case, &completion.text, external)
            };
            let grades: Vec<_> = message.completions.iter().zip(&message.rewards).map(grade).collect();
            if samples::keeps_step(step.0, steps) && kept.len() < samples::KEPT {
                let version = PolicyVersion(message.policy_version);
                kept.push(samples::row(task, slot, version, &case, &message.completions, &grades));
            }
            answers.push((case, grades.into_iter().map(Answer::from).collect()));
            groups.push(Group::try_from_message(message)?);
        }
        let diagnosed = curriculum.diagnostics().metrics(&answers);
        let known = step::CompletedStep {
            step,
            groups: &groups,
            diagnosed: &diagnosed,
            tokens_before,
            seconds,
            anatomy: &anatomy,
        };
        let row = step::row(&known, &metrics.clone().unwrap_or_default());
        if row.get("reward").is_some_and(Value::is_null) {
            tracing::warn!("no completion of step {} has a reward: nothing is learned from it", step.0 + 1);
        }
        let record = StepRecord { reported: metrics.is_some(), row, samples: kept };
        if let Some(recording) = &self.recording {
            recording.add(step, &groups)?;
        }
        store.put_step(step, &record)?;
        Ok(record)
    }

    fn close_evaluation(&self, version: PolicyVersion) -> Result<(EvaluationRecord, Findings), Error> {
        let Self { store, curriculum, watch, .. } = self;
        let task = curriculum.task();
        let mut answers = Vec::new();
        let mut kept = Vec::new();
        for (index, answer) in store.answers(version)? {
            let slot = Slot::Evaluation { version, index };
            let case = curriculum.case(slot)?;
            let grade = task.grade(&case, &answer.text);
            if kept.len() < samples::KEPT {
                let (answers, grades) = (std::slice::from_ref(&answer), std::slice::from_ref(&grade));
                kept.push(samples::row(task, slot, version, &case, answers, grades));
            }
            answers.push(Answered { case, answer, grade });
        }
        if let Some(recorded) = &self.answers {
            recorded.write(version, &answers)?;
        }
        let mut evaluations = store.evaluations()?;
        let start = evaluations.get(&PolicyVersion::START).map(|record| evaluation::Start {
            ranks: &record.ranks,
            likelihood_ranks: record.likelihood_ranks.as_deref(),
        });
        let metrics = evaluation::metrics(task.answer().list_length);
        let parts = parts(answers.iter().map(|answered| answered.case.target), &task.dataset().catalogue);
        let mut row = evaluation::row(version, &answers, start, &metrics, &parts, task.seed());
        row.insert("part".into(), serde_json::json!(curriculum.part()));
        let (ranks, likelihood_ranks) = (evaluation::ranks(&answers), likelihood::ranks(&answers));
        let answers: Vec<_> =
            answers.into_iter().map(|one| (one.case, vec![Answer::from(one.grade)])).collect();
        row.extend(
            curriculum.diagnostics().metrics(&answers).into_iter().map(|(name, value)| (name, value.into())),
        );
        evaluations.insert(version, EvaluationRecord { row, ranks, likelihood_ranks, samples: kept });
        watch.note(store, &mut evaluations, version)?;
        let findings = watch.findings(&evaluations);
        let record = evaluations.remove(&version).unwrap_or_default();
        store.put_evaluation(version, &record)?;
        Ok((record, findings))
    }
}

/// Adds the metrics of a step that was committed without them; returns `None` if it had them.
pub(super) fn add_metrics(
    store: &Store,
    step: Step,
    metrics: &BTreeMap<String, f64>,
) -> Result<Option<StepRecord>, Error> {
    match store.step(step)? {
        Some(mut record) if !record.reported && !metrics.is_empty() => {
            step::add_report(&mut record.row, metrics);
            record.reported = true;
            store.put_step(step, &record)?;
            Ok(Some(record))
        }
        _ => Ok(None),
    }
}

fn tokens(row: &Row) -> u64 {
    row.get("num_tokens").and_then(serde_json::Value::as_u64).unwrap_or(0)
}
