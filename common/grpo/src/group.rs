//! Groups of completions: sampled by a rollout worker, scored by the coordinator, trained on by the learner.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, PolicyVersion};

/// Reason for the end of a completion.
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
    /// For each token, the byte of `text` at which its text ends: ascending, the last is the length of `text`. A
    /// special token adds nothing. If several tokens spell a character, all its bytes belong to the last of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text_ends: Vec<u32>,
    /// Behaviour log-probability of each token in nats, under the full temperature-scaled distribution of the group's
    /// policy version, renormalised over the allowed tokens at the positions in [`Completion::allowed`].
    pub logprobs: Vec<f32>,
    /// Log-probability of each token under the filtered distribution (top-p, top-k) that it was sampled from, if that
    /// differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_logprobs: Option<Vec<f32>>,
    /// Positions at which sampling was restricted to a set of tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Allowed>,
    /// Reason for the end of sampling.
    pub finish_reason: FinishReason,
}

/// A set of tokens to which sampling was restricted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// Position of the sampled token in the completion.
    pub position: u32,
    /// The set, ascending; it contains the sampled token.
    pub token_ids: Vec<u32>,
}

impl Completion {
    /// Returns the number of tokens.
    pub const fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Returns whether the completion has no tokens.
    pub const fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }

    /// Returns the tokens that spell the bytes `span` of the text, by [`Self::text_ends`]: from the first token whose
    /// text ends after the start of the span to the token that reaches its end.
    pub fn tokens_of(&self, span: &Range<usize>) -> Range<u32> {
        let first = self.text_ends.partition_point(|&end| end as usize <= span.start);
        let last = self.text_ends.partition_point(|&end| (end as usize) < span.end);
        let end = (last + 1).min(self.text_ends.len()).max(first);
        first as u32..end as u32
    }
}

/// Reward of one listed item of a completion: credit by rank (Rank-GRPO, arXiv 2510.20150).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankCredit {
    /// The completion's tokens that spell the item. Ranges of a completion ascend and do not overlap. If a token spells
    /// several items, it belongs to the first; the range of another item may be empty.
    pub tokens: Range<u32>,
    /// Its reward, finite.
    pub reward: f64,
}

/// A prompt with its completions and, once scored, their rewards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Step and index of the prompt.
    pub id: GroupId,
    /// The policy version that sampled every completion.
    pub policy_version: PolicyVersion,
    /// Token ids of the prompt, after the chat template.
    pub prompt_ids: Vec<u32>,
    /// The `group_size` completions, in the order of their sample numbers.
    pub completions: Vec<Completion>,
    /// Names of the reward terms, in the order of [`Group::term_rewards`].
    pub reward_terms: Vec<String>,
    /// For each completion the value of each reward term, before weighting.
    pub term_rewards: Vec<Vec<f64>>,
    /// For each completion its total reward; `None` if no term could score it.
    pub rewards: Vec<Option<f64>>,
    /// For each completion the rewards of its listed items, best rank first; empty lists unless credit is by rank.
    #[serde(default)]
    pub rank_credits: Vec<Vec<RankCredit>>,
}

/// Rewards of the completions of one group, the input of advantages.
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
    fn tokens_are_found_by_the_bytes_they_spell() {
        let completion = Completion {
            token_ids: vec![0; 6],
            text: "abcdefgh".into(),
            // One token ends within a character; the last token is special.
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
