//! `answers/<version>.jsonl`: the ranking of every held-out answer of an evaluation, from which metrics can
//! be recomputed.
//!
//! The store deletes the answers once their evaluation is closed. The file of a version is complete and
//! durable before that, and closing the evaluation again after a crash writes the same file.

use std::path::{Path, PathBuf};

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_proto::v1;
use podium_recsys::ranking::RankedAnswer;
use podium_recsys::task::{Case, Grade};

/// One held-out user's answer, with its grade.
#[derive(Debug)]
pub struct Answered {
    /// The case.
    pub case: Case,
    /// The received answer.
    pub answer: v1::Completion,
    /// Its format, ranking and rewards.
    pub grade: Grade,
}

/// The recording of the answers of evaluations.
#[derive(Debug, Clone)]
pub struct Answers {
    folder: PathBuf,
}

impl Answers {
    /// Creates the recording under the folder of a run.
    pub fn new(out: &Path) -> Self {
        Self { folder: out.join("answers") }
    }

    /// Writes a version's file, one line per held-out user in the order of the data set.
    pub fn write(&self, version: PolicyVersion, answers: &[Answered]) -> Result<(), durable::Error> {
        let mut text = String::new();
        for answered in answers {
            let line = serde_json::to_string(&ranked(answered)).expect("a line is numbers, texts and lists");
            text.push_str(&line);
            text.push('\n');
        }
        durable::create_folder(&self.folder)?;
        durable::write(&self.folder.join(format!("{}.jsonl", version.0)), text.as_bytes())
    }
}

fn ranked(Answered { case, answer, grade }: &Answered) -> RankedAnswer {
    RankedAnswer {
        user: case.user,
        target: case.target,
        candidates: case.candidates.clone(),
        form: grade.outcome.form,
        listed: grade.ranking.clone(),
        tokens: answer.token_ids.len(),
        cut_off: answer.finish_reason() == v1::FinishReason::Length,
        logprobs: answer
            .choice_logprobs
            .iter()
            .map(|&logprob| logprob.is_finite().then_some(logprob))
            .collect(),
    }
}
