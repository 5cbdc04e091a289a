//! Checked conversions between messages and domain types. Every message from the network passes here before use.

use podium_grpo::group::Allowed;
use podium_grpo::{Completion, FinishReason, Group, GroupId, PolicyVersion, RankCredit, Step};
use uuid::Uuid;

use crate::v1;

/// A message that does not hold together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// Message and field.
        field: &'static str,
    },
    /// A field has a value it may not have.
    #[error("{field} is {value}: expected {expected}")]
    Invalid {
        /// Message and field.
        field: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Two lists that go together differ in length.
    #[error("{field} has {found} entries: expected {expected}, one for each {of}")]
    Length {
        /// Message and field.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
        /// What the other list holds.
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

/// What one prompt is sampled for, and which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// A group of a training step.
    Training(GroupId),
    /// A held-out prompt under a policy version.
    Evaluation {
        /// The version evaluated.
        version: PolicyVersion,
        /// Position among the held-out prompts.
        index: u32,
    },
}

/// Reads an identifier that a process chose for itself.
pub fn uuid(field: &'static str, text: &str) -> Result<Uuid, Error> {
    let shown = || text.chars().take(64).collect::<String>();
    Uuid::try_parse(text).map_err(|_| Error::invalid(field, &format!("{:?}", shown()), "a UUID"))
}

/// A result of sampling one slot, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotResult {
    /// Which slot.
    pub slot: Slot,
    /// The prompt as the policy read it.
    pub prompt_ids: Vec<u32>,
    /// The completions in sample order.
    pub completions: Vec<Completion>,
    /// For each completion the log-probability of each of the task's choices as the next listed item, in nats; empty
    /// where that was not asked for.
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

impl TryFrom<v1::TaskResult> for SlotResult {
    type Error = Error;

    fn try_from(result: v1::TaskResult) -> Result<Self, Error> {
        let slot = match result.purpose.ok_or(Error::Missing { field: "TaskResult.purpose" })? {
            v1::task_result::Purpose::Training(slot) => slot.into(),
            v1::task_result::Purpose::Evaluation(slot) => slot.into(),
        };
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

/// Reading of messages whose domain type lives in another crate.
pub trait TryFromMessage<M>: Sized {
    /// Checks a message and takes it over.
    fn try_from_message(message: M) -> Result<Self, Error>;
}

impl TryFromMessage<v1::Completion> for Completion {
    fn try_from_message(message: v1::Completion) -> Result<Self, Error> {
        let tokens = message.token_ids.len();
        let check = |field, logprobs: &[f32]| {
            if logprobs.len() != tokens {
                return Err(Error::Length { field, found: logprobs.len(), expected: tokens, of: "token id" });
            }
            match logprobs.iter().find(|value| !value.is_finite() || **value > 1e-3) {
                Some(value) => Err(Error::invalid(field, value, "a finite log-probability of at most 0")),
                None => Ok(()),
            }
        };
        check("Completion.logprobs", &message.logprobs)?;
        if !message.sampled_logprobs.is_empty() {
            check("Completion.sampled_logprobs", &message.sampled_logprobs)?;
        }
        let finish_reason = match message.finish_reason() {
            v1::FinishReason::Stop => FinishReason::Stop,
            v1::FinishReason::Length => FinishReason::Length,
            v1::FinishReason::Unspecified => {
                return Err(Error::invalid(
                    "Completion.finish_reason",
                    &message.finish_reason,
                    "STOP or LENGTH",
                ));
            }
        };
        check_text_ends(&message.text_ends, tokens, &message.text)?;
        let allowed = allowed(message.allowed, &message.token_ids)?;
        let sampled = message.sampled_logprobs;
        Ok(Self {
            token_ids: message.token_ids,
            text: message.text,
            text_ends: message.text_ends,
            logprobs: message.logprobs,
            sampled_logprobs: (!sampled.is_empty()).then_some(sampled),
            allowed,
            finish_reason,
        })
    }
}

/// One end for each token, ascending to the end of the text.
fn check_text_ends(ends: &[u32], tokens: usize, text: &str) -> Result<(), Error> {
    let field = "Completion.text_ends";
    if ends.len() != tokens {
        return Err(Error::Length { field, found: ends.len(), expected: tokens, of: "token id" });
    }
    if let Some((before, end)) = ends.iter().zip(ends.iter().skip(1)).find(|(before, end)| end < before) {
        return Err(Error::invalid(field, &format!("{end} after {before}"), "ascending"));
    }
    match ends.last() {
        Some(&last) if last as usize != text.len() => {
            Err(Error::invalid(field, &last, "the length of the text at the last token"))
        }
        _ => Ok(()),
    }
}

/// Checks the sets that tokens of a completion were sampled from.
fn allowed(messages: Vec<v1::Allowed>, token_ids: &[u32]) -> Result<Vec<Allowed>, Error> {
    let mut next = 0;
    let mut allowed = Vec::with_capacity(messages.len());
    for v1::Allowed { position, token_ids: set } in messages {
        let sampled = token_ids.get(position as usize).filter(|_| position >= next);
        let Some(sampled) = sampled else {
            let expected = "ascending positions of the completion's tokens";
            return Err(Error::invalid("Allowed.position", &position, expected));
        };
        if !set.windows(2).all(|pair| pair[0] < pair[1]) || set.binary_search(sampled).is_err() {
            let expected = "ascending, with the sampled token";
            return Err(Error::invalid("Allowed.token_ids", &format!("{set:?} for {sampled}"), expected));
        }
        next = position.saturating_add(1);
        allowed.push(Allowed { position, token_ids: set });
    }
    Ok(allowed)
}

impl From<Completion> for v1::Completion {
    fn from(completion: Completion) -> Self {
        let finish_reason = match completion.finish_reason {
            FinishReason::Stop => v1::FinishReason::Stop,
            FinishReason::Length => v1::FinishReason::Length,
        };
        Self {
            token_ids: completion.token_ids,
            text: completion.text,
            text_ends: completion.text_ends,
            logprobs: completion.logprobs,
            sampled_logprobs: completion.sampled_logprobs.unwrap_or_default(),
            finish_reason: finish_reason.into(),
            allowed: completion
                .allowed
                .into_iter()
                .map(|Allowed { position, token_ids }| v1::Allowed { position, token_ids })
                .collect(),
            choice_logprobs: Vec::new(),
        }
    }
}

impl TryFromMessage<v1::ScoredGroup> for Group {
    fn try_from_message(message: v1::ScoredGroup) -> Result<Self, Error> {
        let completions = message
            .completions
            .into_iter()
            .map(Completion::try_from_message)
            .collect::<Result<Vec<_>, _>>()?;
        if message.rewards.len() != completions.len() {
            return Err(Error::Length {
                field: "ScoredGroup.rewards",
                found: message.rewards.len(),
                expected: completions.len(),
                of: "completion",
            });
        }
        let terms = message.reward_terms.len();
        for reward in &message.rewards {
            if reward.terms.len() != terms {
                let found = reward.terms.len();
                return Err(Error::Length {
                    field: "Reward.terms",
                    found,
                    expected: terms,
                    of: "reward term",
                });
            }
        }
        let rewards = totals(&message.rewards)?;
        let rank_credits = rank_credits(&message.rewards)?;
        for (credits, completion) in rank_credits.iter().zip(&completions) {
            let end = credits.last().map_or(0, |credit| credit.tokens.end);
            if end as usize > completion.len() {
                return Err(Error::invalid("RankReward.end_token", &end, "at most the completion's tokens"));
            }
        }
        Ok(Self {
            id: GroupId { step: Step(message.step), index: message.index, attempt: message.attempt },
            policy_version: PolicyVersion(message.policy_version),
            prompt_ids: message.prompt_ids,
            completions,
            reward_terms: message.reward_terms,
            term_rewards: message.rewards.into_iter().map(|reward| reward.terms).collect(),
            rewards,
            rank_credits,
        })
    }
}

/// The total rewards of one group's completions; every one that is there is finite.
pub fn totals(rewards: &[v1::Reward]) -> Result<Vec<Option<f64>>, Error> {
    let total = |reward: &v1::Reward| match reward.total {
        Some(total) if !total.is_finite() => Err(Error::invalid("Reward.total", &total, "a finite number")),
        total => Ok(total),
    };
    rewards.iter().map(total).collect()
}

/// What the listed items of one group's completions earn, a list for each completion. Rewards are finite; token ranges
/// ascend and do not overlap.
pub fn rank_credits(rewards: &[v1::Reward]) -> Result<Vec<Vec<RankCredit>>, Error> {
    rewards.iter().map(|reward| ranks(&reward.ranks)).collect()
}

fn ranks(ranks: &[v1::RankReward]) -> Result<Vec<RankCredit>, Error> {
    let mut before = 0;
    let credit = |rank: &v1::RankReward| {
        let v1::RankReward { first_token, end_token, reward } = *rank;
        if first_token < before || end_token < first_token {
            return Err(Error::invalid(
                "RankReward",
                &format!("tokens {first_token} to {end_token} after {before}"),
                "ascending ranges that do not overlap",
            ));
        }
        if !reward.is_finite() {
            return Err(Error::invalid("RankReward.reward", &reward, "a finite number"));
        }
        before = end_token;
        Ok(RankCredit { tokens: first_token..end_token, reward })
    };
    ranks.iter().map(credit).collect()
}

impl From<&RankCredit> for v1::RankReward {
    fn from(credit: &RankCredit) -> Self {
        Self { first_token: credit.tokens.start, end_token: credit.tokens.end, reward: credit.reward }
    }
}

impl From<&Group> for v1::GroupRewards {
    fn from(group: &Group) -> Self {
        let reward = |(at, (total, terms)): (usize, (&Option<f64>, &Vec<f64>))| v1::Reward {
            total: *total,
            terms: terms.clone(),
            ranks: group.rank_credits.get(at).into_iter().flatten().map(v1::RankReward::from).collect(),
        };
        Self { rewards: group.rewards.iter().zip(&group.term_rewards).enumerate().map(reward).collect() }
    }
}

impl From<Group> for v1::ScoredGroup {
    fn from(group: Group) -> Self {
        let rewards = v1::GroupRewards::from(&group).rewards;
        Self {
            step: group.id.step.0,
            index: group.id.index,
            attempt: group.id.attempt,
            policy_version: group.policy_version.0,
            prompt_ids: group.prompt_ids,
            completions: group.completions.into_iter().map(v1::Completion::from).collect(),
            reward_terms: group.reward_terms,
            rewards,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion() -> v1::Completion {
        v1::Completion {
            token_ids: vec![3, 1],
            text: "a".into(),
            text_ends: vec![1, 1],
            logprobs: vec![-0.5, -0.25],
            sampled_logprobs: vec![],
            finish_reason: v1::FinishReason::Stop.into(),
            allowed: vec![v1::Allowed { position: 1, token_ids: vec![1, 2] }],
            choice_logprobs: vec![],
        }
    }

    fn rank(first_token: u32, end_token: u32, reward: f64) -> v1::RankReward {
        v1::RankReward { first_token, end_token, reward }
    }

    #[test]
    fn a_group_survives_the_journey() {
        let message = v1::ScoredGroup {
            step: 4,
            index: 2,
            attempt: 1,
            policy_version: 4,
            prompt_ids: vec![7],
            completions: vec![completion(), completion()],
            reward_terms: vec!["form".into()],
            rewards: vec![
                v1::Reward {
                    total: Some(0.5),
                    terms: vec![1.0],
                    ranks: vec![rank(0, 1, 0.5), rank(1, 2, -1.0)],
                },
                v1::Reward { total: None, terms: vec![0.0], ranks: vec![] },
            ],
        };
        let group = Group::try_from_message(message.clone()).unwrap();
        assert_eq!(group.rewards, [Some(0.5), None]);
        assert_eq!(group.rank_credits[0][1], RankCredit { tokens: 1..2, reward: -1.0 });
        assert_eq!(group.rank_credits[1], []);
        assert_eq!(v1::ScoredGroup::from(group), message);
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        let refused = |change: fn(&mut v1::Completion)| {
            let mut message = completion();
            change(&mut message);
            Completion::try_from_message(message).unwrap_err().to_string()
        };
        assert!(refused(|c| c.logprobs.truncate(1)).contains("expected 2"));
        assert!(refused(|c| c.logprobs[0] = f32::NAN).contains("finite"));
        assert!(refused(|c| c.logprobs[1] = 0.5).contains("at most 0"));
        assert!(refused(|c| c.sampled_logprobs = vec![-1.0]).contains("sampled_logprobs"));
        assert!(refused(|c| c.allowed[0].position = 2).contains("Allowed.position"));
        assert!(refused(|c| c.allowed.push(c.allowed[0].clone())).contains("Allowed.position"));
        assert!(refused(|c| c.allowed[0].token_ids = vec![2, 1]).contains("Allowed.token_ids"));
        assert!(refused(|c| c.allowed[0].token_ids = vec![2, 3]).contains("the sampled token"));
        assert!(refused(|c| c.finish_reason = 9).contains("STOP or LENGTH"));
        assert!(
            refused(|c| c.text_ends.truncate(1)).contains("Completion.text_ends has 1 entries: expected 2")
        );
        assert!(refused(|c| c.text_ends = vec![1, 0]).contains("0 after 1: expected ascending"));
        assert!(refused(|c| c.text_ends = vec![0, 2]).contains("the length of the text"));
        for (ranks, expected) in [
            (vec![rank(0, 1, f64::INFINITY)], "finite"),
            (vec![rank(1, 0, 0.0)], "ascending"),
            (vec![rank(0, 2, 0.0), rank(1, 2, 0.0)], "do not overlap"),
        ] {
            let reward = v1::Reward { total: Some(0.0), terms: vec![], ranks };
            assert!(rank_credits(&[reward]).unwrap_err().to_string().contains(expected));
        }
        let reward = v1::Reward { total: Some(0.0), terms: vec![], ranks: vec![rank(0, 3, 0.0)] };
        let beyond = v1::ScoredGroup {
            completions: vec![completion()],
            rewards: vec![reward],
            ..v1::ScoredGroup::default()
        };
        assert!(Group::try_from_message(beyond).unwrap_err().to_string().contains("end_token is 3"));
        assert!(
            uuid("LeaseRequest.worker_id", "x").unwrap_err().to_string().contains("LeaseRequest.worker_id")
        );
        let unlikely = v1::TaskResult {
            purpose: Some(v1::task_result::Purpose::Evaluation(v1::EvaluationSlot::default())),
            prompt_ids: vec![1],
            completions: vec![v1::Completion { choice_logprobs: vec![-1.0, f64::NAN], ..completion() }],
        };
        let refused = SlotResult::try_from(unlikely).unwrap_err().to_string();
        assert!(refused.contains("choice_logprobs is NaN"), "{refused}");
        let nothing = v1::TaskResult { purpose: None, prompt_ids: vec![1], completions: vec![] };
        assert_eq!(SlotResult::try_from(nothing), Err(Error::Missing { field: "TaskResult.purpose" }));
    }
}
