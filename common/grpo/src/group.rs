//! Groups of completions: what a rollout worker samples, the coordinator scores and the learner trains on.

use std::ops::Range;

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
    /// For each token, the byte of `text` at which its own text ends: ascending, the last is the length of `text`. A
    /// special token adds nothing; of a character that several tokens spell, all bytes belong to the last of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text_ends: Vec<u32>,
    /// Behaviour log-probability of each token under the full temperature-scaled distribution of the group's policy
    /// version, renormalised over the allowed tokens where [`Completion::allowed`] names them; in nats.
    pub logprobs: Vec<f32>,
    /// Log-probability of each token under the distribution it was really drawn from, where a filter (top-p, top-k)
    /// made that another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_logprobs: Option<Vec<f32>>,
    /// Where sampling was restricted to a set of tokens, by position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Allowed>,
    /// Why sampling ended.
    pub finish_reason: FinishReason,
}

/// The tokens of which one was sampled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// Position of the sampled one among the completion's tokens.
    pub position: u32,
    /// The set, ascending; the sampled token is one of it.
    pub token_ids: Vec<u32>,
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

    /// The tokens that write the bytes `span` of the text, by [`Self::text_ends`]: from the first whose text ends behind
    /// the span's start to the one that reaches its end.
    pub fn tokens_of(&self, span: &Range<usize>) -> Range<u32> {
        let first = self.text_ends.partition_point(|&end| end as usize <= span.start);
        let last = self.text_ends.partition_point(|&end| (end as usize) < span.end);
        let end = (last + 1).min(self.text_ends.len()).max(first);
        first as u32..end as u32
    }
}

/// What one listed item of a completion earns: credit by rank (Rank-GRPO, arXiv 2510.20150).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankCredit {
    /// The completion's tokens that write the item. Those of one completion ascend and do not overlap; one is empty where
    /// a token writes several items, of which it counts for the first.
    pub tokens: Range<u32>,
    /// Its reward, finite.
    pub reward: f64,
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
    /// For each completion what its listed items earn, best rank first; empty lists where credit by rank is not asked for.
    #[serde(default)]
    pub rank_credits: Vec<Vec<RankCredit>>,
}

/// What the completions of one group earned: all that advantages are computed from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupRewards {
    /// As [`Group::rewards`].
    pub totals: Vec<Option<f64>>,
    /// As [`Group::term_rewards`].
    pub terms: Vec<Vec<f64>>,
    /// As [`Group::rank_credits`].
    pub ranks: Vec<Vec<RankCredit>>,
}

impl From<&Group> for GroupRewards {
    fn from(group: &Group) -> Self {
        Self {
            totals: group.rewards.clone(),
            terms: group.term_rewards.clone(),
            ranks: group.rank_credits.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_the_bytes_that_they_write() {
        let completion = Completion {
            token_ids: vec![0; 6],
            text: "abcdefgh".into(),
            // A token in the middle of a character, and a special one at the end.
            text_ends: vec![2, 2, 4, 7, 8, 8],
            logprobs: vec![0.0; 6],
            sampled_logprobs: None,
            allowed: Vec::new(),
            finish_reason: FinishReason::Stop,
        };
        for (span, tokens) in
            [(0..2, 0..1), (2..4, 2..3), (3..4, 2..3), (3..5, 2..4), (7..8, 4..5), (0..8, 0..5)]
        {
            assert_eq!(completion.tokens_of(&span), tokens, "{span:?}");
        }
    }
}
