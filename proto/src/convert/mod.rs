//! Checked conversions between messages and domain types. Every received message is converted here before use.

mod completion;
mod group;
#[cfg(test)]
mod tests;

use std::fmt;

use podium_grpo::{Completion, GroupId, PolicyVersion, Step};
use uuid::Uuid;

use crate::v1;
pub use group::{rank_credits, totals};

/// An inconsistent message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A required field is missing.
    #[error("{field} is missing")]
    Missing {
        /// Message and field.
        field: &'static str,
    },
    /// A field has an invalid value.
    #[error("{field} is {value}: expected {expected}")]
    Invalid {
        /// Message and field.
        field: &'static str,
        /// The value.
        value: String,
        /// The valid values.
        expected: &'static str,
    },
    /// Two parallel lists differ in length.
    #[error("{field} has {found} entries: expected {expected}, one for each {of}")]
    Length {
        /// Message and field.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The expected length.
        expected: usize,
        /// The elements of the other list.
        of: &'static str,
    },
}

impl Error {
    pub(crate) fn invalid(field: &'static str, value: &impl ToString, expected: &'static str) -> Self {
        Self::Invalid { field, value: value.to_string(), expected }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// The purpose of one prompt, with its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// A group of a training step.
    Training(GroupId),
    /// A held-out prompt under a policy version.
    Evaluation {
        /// The evaluated version.
        version: PolicyVersion,
        /// Position among the held-out prompts.
        index: u32,
    },
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Training(id) => id.fmt(f),
            Self::Evaluation { version, index } => write!(f, "evaluation prompt {index} under {version}"),
        }
    }
}

/// Parses an identifier chosen by a process.
pub fn uuid(field: &'static str, text: &str) -> Result<Uuid, Error> {
    let shown = || text.chars().take(64).collect::<String>();
    Uuid::try_parse(text).map_err(|_| Error::invalid(field, &format!("{:?}", shown()), "a UUID"))
}

/// A result of sampling one slot, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotResult {
    /// The slot.
    pub slot: Slot,
    /// The tokenized prompt.
    pub prompt_ids: Vec<u32>,
    /// The completions in sample order.
    pub completions: Vec<Completion>,
    /// For each completion the log-probability of each of the task's choices as the next listed item, in nats; empty
    /// unless requested.
    pub choice_logprobs: Vec<Vec<f64>>,
}

impl From<Slot> for v1::task::Purpose {
    fn from(slot: Slot) -> Self {
        match slot {
            Slot::Training(id) => Self::Training(id.into()),
            Slot::Evaluation { version, index } => {
                Self::Evaluation(v1::EvaluationSlot { policy_version: version.0, index })
            }
        }
    }
}

impl From<Slot> for v1::task_result::Purpose {
    fn from(slot: Slot) -> Self {
        match slot {
            Slot::Training(id) => Self::Training(id.into()),
            Slot::Evaluation { version, index } => {
                Self::Evaluation(v1::EvaluationSlot { policy_version: version.0, index })
            }
        }
    }
}

impl From<GroupId> for v1::TrainingSlot {
    fn from(id: GroupId) -> Self {
        Self { step: id.step.0, index: id.index, attempt: id.attempt }
    }
}

impl From<v1::TrainingSlot> for Slot {
    fn from(slot: v1::TrainingSlot) -> Self {
        Self::Training(GroupId { step: Step(slot.step), index: slot.index, attempt: slot.attempt })
    }
}

impl From<v1::EvaluationSlot> for Slot {
    fn from(slot: v1::EvaluationSlot) -> Self {
        Self::Evaluation { version: PolicyVersion(slot.policy_version), index: slot.index }
    }
}

impl TryFrom<&v1::Task> for Slot {
    type Error = Error;

    fn try_from(task: &v1::Task) -> Result<Self, Error> {
        match task.purpose.ok_or(Error::Missing { field: "Task.purpose" })? {
            v1::task::Purpose::Training(slot) => Ok(slot.into()),
            v1::task::Purpose::Evaluation(slot) => Ok(slot.into()),
        }
    }
}

impl TryFrom<&v1::TaskResult> for Slot {
    type Error = Error;

    fn try_from(result: &v1::TaskResult) -> Result<Self, Error> {
        match result.purpose.ok_or(Error::Missing { field: "TaskResult.purpose" })? {
            v1::task_result::Purpose::Training(slot) => Ok(slot.into()),
            v1::task_result::Purpose::Evaluation(slot) => Ok(slot.into()),
        }
    }
}

impl TryFrom<v1::TaskResult> for SlotResult {
    type Error = Error;

    fn try_from(result: v1::TaskResult) -> Result<Self, Error> {
        let slot = Slot::try_from(&result)?;
        if result.prompt_ids.is_empty() {
            return Err(Error::Missing { field: "TaskResult.prompt_ids" });
        }
        let mut messages = result.completions;
        let scores = messages.iter_mut().map(|message| std::mem::take(&mut message.choice_logprobs));
        let choice_logprobs: Vec<Vec<f64>> = scores.collect();
        let probable = |logprob: &&f64| logprob.is_finite() && **logprob <= 1e-3;
        if let Some(logprob) = choice_logprobs.iter().flatten().find(|logprob| !probable(logprob)) {
            let expected = "a finite log-probability of at most 0";
            return Err(Error::invalid("Completion.choice_logprobs", logprob, expected));
        }
        let completions = messages.into_iter().map(Completion::try_from_message).collect::<Result<_, _>>()?;
        Ok(Self { slot, prompt_ids: result.prompt_ids, completions, choice_logprobs })
    }
}

impl From<SlotResult> for v1::TaskResult {
    fn from(result: SlotResult) -> Self {
        let scores = result.choice_logprobs.into_iter().chain(std::iter::repeat(Vec::new()));
        let completions = result.completions.into_iter().zip(scores);
        let completions = completions.map(|(completion, choice_logprobs)| v1::Completion {
            choice_logprobs,
            ..v1::Completion::from(completion)
        });
        Self {
            purpose: Some(result.slot.into()),
            prompt_ids: result.prompt_ids,
            completions: completions.collect(),
        }
    }
}

/// Conversion of messages whose domain type belongs to another crate.
pub trait TryFromMessage<M>: Sized {
    /// Checks a message and converts it.
    fn try_from_message(message: M) -> Result<Self, Error>;
}
