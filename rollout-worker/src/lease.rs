//! Leases and their results in domain types. This module checks all lease messages.

use std::ops::AddAssign;
use std::time::Duration;

use podium_constraint::{Answer, Reasoning};
use podium_grpo::rng::Stream;
use podium_grpo::{GroupId, PolicyVersion, Sampling, sampling};
use podium_proto::convert::{self, Error, Slot, SlotResult};
use podium_proto::v1;
use podium_recsys::completion::{Layout, ThinkingStart};
use podium_tokenizer::Message;
use podium_transfer::Content;
use uuid::Uuid;

use crate::source::Source;

/// Prompts to sample as one batch under one policy version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lease {
    /// The coordinator's id of the lease.
    pub(crate) id: Uuid,
    /// The version to sample from.
    pub(crate) source: Source,
    /// At least one prompt.
    pub(crate) tasks: Vec<Task>,
    /// Number of completions per prompt, at least 1.
    pub(crate) group_size: usize,
    /// Sampling parameters, with the tokenizer's stop tokens.
    pub(crate) sampling: Sampling,
    /// The run's seed.
    pub(crate) seed: u64,
    /// Whether answers may list only choices.
    pub(crate) constrain_answers: bool,
    /// The scoring of choices as the next listed item, if the lease requests it.
    pub(crate) likelihood: Option<v1::Likelihood>,
}

impl Lease {
    /// Returns whether each task needs its choices.
    pub(crate) const fn needs_choices(&self) -> bool {
        self.constrain_answers || self.likelihood.is_some()
    }

    /// Returns the activity of sampling it. All its tasks have one purpose.
    pub(crate) fn activity(&self) -> v1::Activity {
        match self.tasks.first().map(|task| task.slot) {
            Some(Slot::Evaluation { .. }) => v1::Activity::Evaluate,
            Some(Slot::Training(_)) | None => v1::Activity::Sample,
        }
    }
}

/// One prompt and the slot of its completions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    /// The slot of the completions.
    pub(crate) slot: Slot,
    /// At least one message.
    pub(crate) messages: Vec<Message>,
    /// The items that the answer may list; present if the lease requires them.
    pub(crate) choices: Option<Choices>,
}

/// The items that an answer may list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choices {
    /// Texts of the items: none is a prefix of another.
    pub(crate) items: Vec<String>,
    /// Number of items in an answer, at least 1 and at most all.
    pub(crate) count: usize,
    /// Whether each item is on its own line.
    pub(crate) lines: bool,
    /// Whether the answer must follow reasoning.
    pub(crate) after_thinking: bool,
}

impl Choices {
    /// Returns the constraint for answers that list these items, after a prompt whose think block is in state
    /// `start`.
    pub(crate) fn answer(&self, start: ThinkingStart) -> Result<Answer, podium_constraint::Error> {
        let reasoning = match start {
            ThinkingStart::Opened { .. } => Reasoning::First,
            ThinkingStart::Closed { .. } => Reasoning::Over,
            ThinkingStart::Absent if self.after_thinking => Reasoning::First,
            ThinkingStart::Absent => Reasoning::Optional,
        };
        Answer::new(self.items.iter().map(String::as_str), self.count, self.lines, reasoning)
    }

    /// Returns the separators of listed items.
    pub(crate) const fn layout(&self) -> Layout {
        if self.lines { Layout::Titled } else { Layout::Ids }
    }
}

/// A lease's completions and their cost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// The version that sampled them.
    pub(crate) source: Source,
    /// One for each task, in the lease's order.
    pub(crate) results: Vec<SlotResult>,
    /// The cost.
    pub(crate) cost: Cost,
}

/// The cost of sampling a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cost {
    /// Time until every completion had its first token.
    pub(crate) prefill: Duration,
    /// Time from then to the end.
    pub(crate) decode: Duration,
    /// Number of prompt tokens, each computed once.
    pub(crate) prompt_tokens: u64,
    /// Number of completion tokens.
    pub(crate) completion_tokens: u64,
    /// Floating point operations of the model.
    pub(crate) flops: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.prefill += other.prefill;
        self.decode += other.decode;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.flops += other.flops;
    }
}

impl Cost {
    /// Returns the total time on the device.
    pub(crate) fn sampling(&self) -> Duration {
        self.prefill + self.decode
    }
}

/// Returns the random numbers of one completion: a function of its purpose, independent of the worker and the
/// time.
///
/// For evaluations they are independent of the version, so that two versions are compared on the same random
/// numbers.
pub(crate) fn stream(seed: u64, slot: Slot, sample: usize) -> Stream {
    let sample = sample as u64;
    match slot {
        Slot::Training(GroupId { step, index, attempt: 0 }) => {
            Stream::new(seed, "sample", &[step.0, u64::from(index), sample])
        }
        Slot::Training(GroupId { step, index, attempt }) => {
            Stream::new(seed, "sample", &[step.0, u64::from(index), sample, u64::from(attempt)])
        }
        Slot::Evaluation { index, .. } => Stream::new(seed, "evaluation sample", &[u64::from(index), sample]),
    }
}

impl TryFrom<v1::Lease> for Lease {
    type Error = Error;

    fn try_from(message: v1::Lease) -> Result<Self, Error> {
        let id = convert::uuid("Lease.lease_id", &message.lease_id)?;
        let version = PolicyVersion(message.policy_version);
        let message_sampling = message.sampling.ok_or(Error::Missing { field: "Lease.sampling" })?;
        let v1::Sampling { group_size, seed, constrain_answers, likelihood, .. } = message_sampling;
        if group_size == 0 {
            return Err(invalid("Sampling.group_size", &group_size, "at least 1"));
        }
        let tasks = message.tasks.into_iter().map(Task::try_from).collect::<Result<Vec<_>, _>>()?;
        if tasks.is_empty() {
            return Err(Error::Missing { field: "Lease.tasks" });
        }
        let content = Some(Content::read("Lease.policy_content", &message.policy_content)?);
        let lease = Self {
            id,
            source: Source { version, content },
            tasks,
            group_size: group_size as usize,
            sampling: sampling(message_sampling)?,
            seed,
            constrain_answers,
            likelihood,
        };
        for task in &lease.tasks {
            if lease.needs_choices() && task.choices.is_none() {
                return Err(Error::Missing { field: "Task.choices" });
            }
            match task.slot {
                Slot::Evaluation { version: other, .. } if other != version => {
                    return Err(invalid(
                        "EvaluationSlot.policy_version",
                        &other.0,
                        "the lease's policy version",
                    ));
                }
                _ => {}
            }
        }
        Ok(lease)
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = Error;

    fn try_from(message: v1::Task) -> Result<Self, Error> {
        let slot = Slot::try_from(&message)?;
        if message.messages.is_empty() {
            return Err(Error::Missing { field: "Task.messages" });
        }
        let messages = message.messages.into_iter();
        let messages = messages.map(|part| Message { role: part.role, content: part.content }).collect();
        let choices = message.choices.map(Choices::try_from).transpose()?;
        Ok(Self { slot, messages, choices })
    }
}

impl TryFrom<v1::Choices> for Choices {
    type Error = Error;

    fn try_from(message: v1::Choices) -> Result<Self, Error> {
        let v1::Choices { items, count, lines, after_thinking } = message;
        let choices = Self { items, count: count as usize, lines, after_thinking };
        match choices.answer(ThinkingStart::Absent) {
            Ok(_) => Ok(choices),
            Err(error) => Err(invalid("Task.choices", &error, "items that make a list")),
        }
    }
}

/// Parses sampling parameters and checks their ranges.
fn sampling(message: v1::Sampling) -> Result<Sampling, Error> {
    let v1::Sampling { temperature, top_p, top_k, max_new_tokens, .. } = message;
    let sampling = Sampling {
        temperature,
        top_p,
        top_k: top_k as usize,
        greedy: temperature == 0.0,
        max_new_tokens: max_new_tokens as usize,
        stop_token_ids: Vec::new(),
    };
    match sampling.check() {
        Ok(()) => Ok(sampling),
        Err(sampling::Error::Temperature(found)) => {
            Err(invalid("Sampling.temperature", &found, "a finite number of at least 0"))
        }
        Err(sampling::Error::TopP(found)) => {
            Err(invalid("Sampling.top_p", &found, "a number above 0, at most 1"))
        }
        Err(sampling::Error::MaxNewTokens) => Err(invalid("Sampling.max_new_tokens", &0, "at least 1")),
    }
}

impl Outcome {
    /// Returns the message that submits the outcome.
    pub(crate) fn into_request(self, worker_id: Uuid, lease_id: Uuid) -> v1::SubmitRequest {
        v1::SubmitRequest {
            worker_id: worker_id.to_string(),
            lease_id: lease_id.to_string(),
            policy_version: self.source.version.0,
            policy_content: self.source.content.map(Content::to_bytes).unwrap_or_default(),
            results: self.results.into_iter().map(v1::TaskResult::from).collect(),
            activities: Vec::new(),
        }
    }
}

fn invalid(field: &'static str, value: &dyn ToString, expected: &'static str) -> Error {
    Error::Invalid { field, value: value.to_string(), expected }
}

#[cfg(test)]
pub(crate) mod tests {
    use podium_grpo::Step;

    use super::*;

    /// Returns the version of a training lease of a step.
    pub(crate) fn source(step: u64) -> Source {
        let content = Some(Content::read("content", &[step as u8; 32]).unwrap());
        Source { version: PolicyVersion(step), content }
    }

    /// Returns a lease of `prompts` training prompts of a step.
    pub(crate) fn training(step: u64, prompts: &[&str]) -> v1::Lease {
        let task = |(index, prompt): (usize, &&str)| v1::Task {
            purpose: Some(v1::task::Purpose::Training(v1::TrainingSlot {
                step,
                index: index as u32,
                attempt: 0,
            })),
            messages: vec![v1::Message { role: "user".into(), content: (*prompt).to_owned() }],
            choices: None,
        };
        v1::Lease {
            lease_id: Uuid::from_u128(u128::from(step) + 1).to_string(),
            policy_version: step,
            policy_content: vec![step as u8; 32],
            tasks: prompts.iter().enumerate().map(task).collect(),
            sampling: Some(v1::Sampling {
                group_size: 4,
                temperature: 1.0,
                top_p: 1.0,
                top_k: 0,
                max_new_tokens: 12,
                seed: 5,
                constrain_answers: false,
                likelihood: None,
            }),
        }
    }

    #[test]
    fn inconsistent_leases_are_refused() {
        Lease::try_from(training(0, &["a"])).unwrap();
        let refused = |change: fn(&mut v1::Lease)| {
            let mut message = training(3, &["a", "b"]);
            change(&mut message);
            Lease::try_from(message).unwrap_err().to_string()
        };
        assert!(refused(|lease| lease.lease_id = "7".into()).contains("Lease.lease_id"));
        assert!(refused(|lease| lease.tasks.clear()).contains("Lease.tasks"));
        assert!(refused(|lease| lease.policy_content.clear()).contains("Lease.policy_content"));
        assert!(refused(|lease| lease.tasks[1].messages.clear()).contains("Task.messages"));
        assert!(refused(|lease| lease.tasks[0].purpose = None).contains("Task.purpose"));
        assert!(refused(|lease| lease.sampling = None).contains("Lease.sampling"));
        let sampling = |change: fn(&mut v1::Sampling)| {
            let mut message = training(3, &["a"]);
            change(message.sampling.as_mut().unwrap());
            Lease::try_from(message).unwrap_err().to_string()
        };
        assert!(sampling(|sampling| sampling.group_size = 0).contains("group_size"));
        assert!(sampling(|sampling| sampling.temperature = f64::NAN).contains("temperature"));
        assert!(sampling(|sampling| sampling.top_p = 0.0).contains("top_p"));
        assert!(sampling(|sampling| sampling.max_new_tokens = 0).contains("max_new_tokens"));
        let without_choices = sampling(|sampling| sampling.constrain_answers = true);
        assert!(without_choices.contains("Task.choices is missing"));
        let no_list = refused(|lease| {
            let items = vec!["a".into(), "a b".into()];
            lease.tasks[1].choices = Some(v1::Choices { items, count: 1, ..v1::Choices::default() });
        });
        assert!(no_list.contains("Task.choices is item \"a\" is a prefix of another"), "{no_list}");
        let of_another_version = refused(|lease| {
            let slot = v1::EvaluationSlot { policy_version: 2, index: 0 };
            lease.tasks[0].purpose = Some(v1::task::Purpose::Evaluation(slot));
        });
        assert!(of_another_version.contains("the lease's policy version"));
    }

    #[test]
    fn random_numbers_are_keyed_by_purpose_slot_and_sample() {
        let first = |seed, slot, sample| stream(seed, slot, sample).next_u64();
        let training = |step, index| Slot::Training(GroupId::first(Step(step), index));
        let again = |attempt| Slot::Training(GroupId { step: Step(2), index: 3, attempt });
        let evaluation = |version, index| Slot::Evaluation { version: PolicyVersion(version), index };
        assert_eq!(first(1, training(2, 3), 4), Stream::new(1, "sample", &[2, 3, 4]).next_u64());
        assert_ne!(first(1, training(2, 3), 4), first(1, training(2, 4), 4));
        assert_ne!(first(1, training(2, 3), 4), first(2, training(2, 3), 4));
        assert_eq!(first(1, again(0), 4), first(1, training(2, 3), 4));
        assert_ne!(first(1, again(1), 4), first(1, again(0), 4));
        assert_ne!(first(1, again(1), 4), first(1, again(2), 4));
        assert_eq!(
            first(1, evaluation(0, 3), 0),
            Stream::new(1, "evaluation sample", &[3, 0]).next_u64(),
            "evaluations are keyed by prompt and sample"
        );
        assert_eq!(first(1, evaluation(0, 3), 0), first(1, evaluation(9, 3), 0), "random numbers are paired");
    }
}
