//! Groups of completions: what a rollout worker samples, the coordinator scores and the learner trains on.

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, PolicyVersion};

/// Why sampling of a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token was sampled; it is the last of the completion's ids.
    Stop,
    /// `max_new_tokens` was reached first: the completion is truncated.
    Length,
}

/// One sampled answer to a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Sampled ids, the stop token included.
    pub token_ids: Vec<u32>,
    /// The decoded text without special tokens.
    pub text: String,
    /// Behaviour log-probability of each token under the full temperature-scaled distribution of the group's policy
    /// version, in nats.
    pub logprobs: Vec<f32>,
    /// Log-probability of each token under the distribution it was really drawn from, where a filter (top-p, top-k)
    /// made that another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_logprobs: Option<Vec<f32>>,
    /// Why sampling ended.
    pub finish_reason: FinishReason,
}

impl Completion {
    /// Number of tokens.
    pub const fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Whether not one token was sampled.
    pub const fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }
}

/// A prompt with its completions and, once scored, their rewards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Which prompt of which step.
    pub id: GroupId,
    /// The policy version that sampled every completion.
    pub policy_version: PolicyVersion,
    /// The prompt as the policy read it, chat template applied.
    pub prompt_ids: Vec<u32>,
    /// The `group_size` completions, in the order of their sample numbers.
    pub completions: Vec<Completion>,
    /// Names of the reward terms, in the order of [`Group::term_rewards`].
    pub reward_terms: Vec<String>,
    /// For each completion the value of each reward term, before weighting.
    pub term_rewards: Vec<Vec<f64>>,
    /// For each completion its total reward; `None` where no term could score it.
    pub rewards: Vec<Option<f64>>,
}
