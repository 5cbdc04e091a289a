//! What is computed when a step is committed or an evaluation is complete. Functions of what the store holds; they block.

use std::collections::BTreeMap;

use podium_grpo::{Group, PolicyVersion, Step};
use podium_proto::convert::{Slot, TryFromMessage};
use podium_proto::v1;
use podium_recsys::diagnostics::Answer;
use serde_json::Value;

use super::Error;
use crate::curriculum::Curriculum;
use crate::grading;
use crate::machine::Work;
use crate::reports::answers::{Answered, Answers};
use crate::reports::parts::parts;
use crate::reports::recording::Recording;
use crate::reports::watch::{Findings, Watch};
use crate::reports::{evaluation, likelihood, samples, step};
use crate::store::{EvaluationRecord, Row, StepRecord, Store};

/// A step that rank 0 has finished.
pub(super) struct Finished {
    pub(super) step: Step,
    /// What rank 0 reported; nothing where its report was lost.
    pub(super) figures: Option<BTreeMap<String, f64>>,
    /// Seconds since the step before it.
    pub(super) seconds: f64,
    /// Steps of the run.
    pub(super) steps: u64,
}

/// Makes a step's record and keeps it, once its groups are recorded where they are to be.
pub(super) fn close_step(
    store: &Store,
    curriculum: &Curriculum,
    recording: Option<&Recording>,
    finished: Finished,
) -> Result<StepRecord, Error> {
    let Finished { step, figures, seconds, steps } = finished;
    let tokens_before = match step.0.checked_sub(1) {
        Some(before) => store.step(Step(before))?.map_or(0, |record| tokens(&record.row)),
        None => 0,
    };
    let work = Work::Training(step);
    let (mut groups, mut answers, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for message in store.groups(step)? {
        let slot = work.slot(message.index, message.attempt);
        let case = curriculum.case(slot)?;
        if samples::keeps_step(step.0, steps) && kept.len() < samples::KEPT {
            let version = PolicyVersion(message.policy_version);
            kept.push(samples::row(curriculum.task(), slot, version, &case, &message.completions));
        }
        let read = |one: &v1::Completion| Answer::from(grading::read(curriculum.task(), &case, &one.text));
        let answered: Vec<Answer> = message.completions.iter().map(read).collect();
        answers.push((case, answered));
        groups.push(Group::try_from_message(message)?);
    }
    let diagnosed = curriculum.diagnostics().figures(&answers);
    let known = step::StepFigures { step, groups: &groups, diagnosed: &diagnosed, tokens_before, seconds };
    let row = step::row(&known, &figures.clone().unwrap_or_default());
    if row.get("reward").is_some_and(Value::is_null) {
        tracing::warn!("no completion of step {} has a reward: nothing is learned from it", step.0 + 1);
    }
    let record = StepRecord { reported: figures.is_some(), row, samples: kept };
    if let Some(recording) = recording {
        recording.add(step, &groups)?;
    }
    store.put_step(step, &record)?;
    Ok(record)
}

/// Adds a report that comes after its step was committed without one; `None` if there was one.
pub(super) fn add_report(
    store: &Store,
    step: Step,
    figures: &BTreeMap<String, f64>,
) -> Result<Option<StepRecord>, Error> {
    match store.step(step)? {
        Some(mut record) if !record.reported && !figures.is_empty() => {
            step::add_report(&mut record.row, figures);
            record.reported = true;
            store.put_step(step, &record)?;
            Ok(Some(record))
        }
        _ => Ok(None),
    }
}

/// Makes an evaluation's record and keeps it, once its answers are recorded where they are to be. Evaluations are closed
/// in order of version.
pub(super) fn close_evaluation(
    store: &Store,
    curriculum: &Curriculum,
    watch: &Watch,
    recorded: Option<&Answers>,
    version: PolicyVersion,
) -> Result<(EvaluationRecord, Findings), Error> {
    let task = curriculum.task();
    let mut answers = Vec::new();
    let mut kept = Vec::new();
    for (index, answer) in store.answers(version)? {
        let slot = Slot::Evaluation { version, index };
        let case = curriculum.case(slot)?;
        if kept.len() < samples::KEPT {
            kept.push(samples::row(task, slot, version, &case, std::slice::from_ref(&answer)));
        }
        let reading = grading::read(task, &case, &answer.text);
        answers.push(Answered { case, answer, reading });
    }
    if let Some(recorded) = recorded {
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
    let (ranks, likelihood_ranks) = (evaluation::ranks(&answers), likelihood::ranks(&answers));
    let answers: Vec<_> =
        answers.into_iter().map(|one| (one.case, vec![Answer::from(one.reading)])).collect();
    row.extend(
        curriculum.diagnostics().figures(&answers).into_iter().map(|(name, value)| (name, value.into())),
    );
    evaluations.insert(version, EvaluationRecord { row, ranks, likelihood_ranks, samples: kept });
    watch.note(store, &mut evaluations, version)?;
    let findings = watch.findings(&evaluations);
    let record = evaluations.remove(&version).unwrap_or_default();
    store.put_evaluation(version, &record)?;
    Ok((record, findings))
}

/// The completions and tokens of groups.
pub(super) fn volume(groups: &[v1::ScoredGroup]) -> (usize, usize) {
    let completions = || groups.iter().flat_map(|group| &group.completions);
    (completions().count(), completions().map(|completion| completion.token_ids.len()).sum())
}

fn tokens(row: &Row) -> u64 {
    row.get("num_tokens").and_then(serde_json::Value::as_u64).unwrap_or(0)
}
