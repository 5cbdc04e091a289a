//! Scored groups, with the rewards of their completions and listed items.

use podium_grpo::{Completion, Group, GroupId, PolicyVersion, RankCredit, Step};

use super::{Error, TryFromMessage};
use crate::v1;

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

/// Returns the total rewards of one group's completions; every present total is finite.
pub fn totals(rewards: &[v1::Reward]) -> Result<Vec<Option<f64>>, Error> {
    let total = |reward: &v1::Reward| match reward.total {
        Some(total) if !total.is_finite() => Err(Error::invalid("Reward.total", &total, "a finite number")),
        total => Ok(total),
    };
    rewards.iter().map(total).collect()
}

/// Returns the rewards of the listed items of one group's completions, a list for each completion. Rewards are
/// finite; token ranges are ascending and do not overlap.
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
