//! Groups as rows of a JSON Lines file, as recorded by a run and read by `podium-learner replay`.
//!
//! Required are `prompt_ids` and, for each completion, `ids` and `reward`; all other fields are optional.

use serde::{Deserialize, Serialize};

use crate::group::{Allowed, Completion, FinishReason, Group, RankCredit};
use crate::ids::{GroupId, PolicyVersion};

/// A group as a row of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedGroup {
    /// The step that the group was sampled for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Its position in the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// The policy version that sampled the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<u64>,
    /// Token ids of the prompt, after the chat template.
    pub prompt_ids: Vec<u32>,
    /// Names of the reward terms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reward_terms: Vec<String>,
    /// Weight of each reward term.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reward_weights: Vec<f64>,
    /// The completions, in sample order.
    pub completions: Vec<RecordedCompletion>,
}

/// A completion in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedCompletion {
    /// Sampled ids, the stop token included.
    pub ids: Vec<u32>,
    /// Total reward; null if no term could score it. Required, since a missing value would otherwise be read as null.
    #[serde(deserialize_with = "Option::deserialize")]
    pub reward: Option<f64>,
    /// The value of each reward term, before weighting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<f64>,
    /// Rewards of its listed items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<RankCredit>,
    /// Behaviour log-probability of each token, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<f32>>,
    /// Positions at which sampling was restricted to a set of tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Allowed>,
    /// The reason why sampling ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// The decoded text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl RecordedGroup {
    /// Creates the row of a group whose reward terms have these weights.
    pub fn new(group: Group, reward_weights: Vec<f64>) -> Self {
        let Group { id, policy_version, prompt_ids, completions, reward_terms, .. } = group;
        let mut ranks = group.rank_credits.into_iter();
        let earned = group.rewards.into_iter().zip(group.term_rewards);
        let completion =
            |(completion, (reward, terms)): (Completion, (Option<f64>, Vec<f64>))| RecordedCompletion {
                ids: completion.token_ids,
                reward,
                terms,
                ranks: ranks.next().unwrap_or_default(),
                logprobs: Some(completion.logprobs),
                allowed: completion.allowed,
                finish_reason: Some(completion.finish_reason),
                text: Some(completion.text),
            };
        Self {
            step: Some(id.step.0),
            index: Some(id.index),
            policy_version: Some(policy_version.0),
            prompt_ids,
            reward_terms,
            reward_weights,
            completions: completions.into_iter().zip(earned).map(completion).collect(),
        }
    }

    /// Returns the group with the given id. Missing log-probabilities become empty; `is_cut` decides whether a
    /// completion without `finish_reason` was truncated.
    pub fn into_group(self, id: GroupId, is_cut: impl Fn(&[u32]) -> bool) -> Group {
        let mut group = Group {
            id,
            policy_version: PolicyVersion(self.policy_version.unwrap_or(id.step.0)),
            prompt_ids: self.prompt_ids,
            completions: Vec::new(),
            reward_terms: self.reward_terms,
            term_rewards: Vec::new(),
            rewards: Vec::new(),
            rank_credits: Vec::new(),
        };
        for completion in self.completions {
            let end = || if is_cut(&completion.ids) { FinishReason::Length } else { FinishReason::Stop };
            group.rewards.push(completion.reward);
            group.term_rewards.push(completion.terms);
            group.rank_credits.push(completion.ranks);
            group.completions.push(Completion {
                finish_reason: completion.finish_reason.unwrap_or_else(end),
                token_ids: completion.ids,
                text: completion.text.unwrap_or_default(),
                text_ends: Vec::new(),
                logprobs: completion.logprobs.unwrap_or_default(),
                sampled_logprobs: None,
                allowed: completion.allowed,
            });
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Step;

    #[test]
    fn a_group_is_recorded_and_read_back() {
        let id = GroupId::first(Step(3), 1);
        let completion = |tokens: &[u32], finish_reason| Completion {
            token_ids: tokens.to_vec(),
            text: "a".into(),
            text_ends: vec![],
            logprobs: tokens.iter().map(|token| -0.1 * *token as f32).collect(),
            sampled_logprobs: None,
            allowed: vec![Allowed { position: 0, token_ids: vec![1, 3] }],
            finish_reason,
        };
        let group = Group {
            id,
            policy_version: PolicyVersion(2),
            prompt_ids: vec![7, 8],
            completions: vec![
                completion(&[1, 2], FinishReason::Stop),
                completion(&[3], FinishReason::Length),
            ],
            reward_terms: vec!["form".into()],
            term_rewards: vec![vec![0.1 + 0.2], vec![0.0]],
            rewards: vec![Some(0.7), None],
            rank_credits: vec![vec![RankCredit { tokens: 0..2, reward: 1.0 / 3.0 }], vec![]],
        };
        let row = serde_json::to_string(&RecordedGroup::new(group.clone(), vec![0.5])).unwrap();
        let read: RecordedGroup = serde_json::from_str(&row).unwrap();
        assert_eq!(read.reward_weights, [0.5]);
        assert_eq!(read.into_group(id, |_| false), group);
    }

    #[test]
    fn optional_fields_may_be_missing() {
        let row = r#"{"prompt_ids": [1], "completions": [{"ids": [2, 3], "reward": 0.5}, {"ids": [4], "reward": null}]}"#;
        let read: RecordedGroup = serde_json::from_str(row).unwrap();
        let group = read.into_group(GroupId::first(Step(5), 0), |ids| ids.last() == Some(&4));
        assert_eq!((group.rewards, group.policy_version), (vec![Some(0.5), None], PolicyVersion(5)));
        assert_eq!(group.completions[1].finish_reason, FinishReason::Length);
        assert_eq!(group.completions[0].finish_reason, FinishReason::Stop);
        assert!(group.completions[0].logprobs.is_empty());
    }

    #[test]
    fn a_reward_may_be_null_but_not_missing() {
        let row = r#"{"prompt_ids": [1], "completions": [{"ids": [2]}]}"#;
        let error = serde_json::from_str::<RecordedGroup>(row).unwrap_err().to_string();
        assert!(error.starts_with("missing field `reward`"), "{error}");
    }
}
