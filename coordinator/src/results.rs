//! Results of slots: their stored form, the workers that sampled them, and the slots that they fill.

use podium_grpo::advantage::has_zero_variance;
use podium_grpo::{GroupId, PolicyVersion, Step};
use podium_proto::convert::Slot;
use podium_proto::v1;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A slot that has a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// The slot.
    pub slot: Slot,
    /// Whether all rewards of the group are equal; never for answers to held-out prompts.
    pub zero_variance: bool,
}

/// Checked and scored results, ready to be stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results {
    /// Results of training slots.
    pub groups: Vec<v1::ScoredGroup>,
    /// Results of evaluation slots: version, index, answer.
    pub answers: Vec<(PolicyVersion, u32, v1::Completion)>,
}

impl Results {
    /// Returns whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.answers.is_empty()
    }

    /// Retains the results whose slots `is_wanted` selects; it is called for groups first, in order.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(Filled) -> bool) {
        self.groups.retain(|group| is_wanted(filled(group)));
        let answered =
            |version, index| Filled { slot: Slot::Evaluation { version, index }, zero_variance: false };
        self.answers.retain(|&(version, index, _)| is_wanted(answered(version, index)));
    }

    /// Returns the numbers of completions and tokens of the groups.
    pub fn volume(&self) -> (usize, usize) {
        let completions = || self.groups.iter().flat_map(|group| &group.completions);
        (completions().count(), completions().map(|completion| completion.token_ids.len()).sum())
    }
}

/// Returns the slot that a scored group fills, and whether dynamic sampling replaces the group.
pub fn filled(group: &v1::ScoredGroup) -> Filled {
    let v1::ScoredGroup { step, index, attempt, rewards, .. } = group;
    let slot = Slot::Training(GroupId { step: Step(*step), index: *index, attempt: *attempt });
    let totals: Vec<Option<f64>> = rewards.iter().map(|reward| reward.total).collect();
    // Credit by rank compares items, and may find a difference between equal totals.
    let items = |reward: &v1::Reward| reward.ranks.iter().map(|rank| rank.reward).collect::<Vec<f64>>();
    let same_items = rewards.windows(2).all(|pair| items(&pair[0]) == items(&pair[1]));
    Filled { slot, zero_variance: same_items && has_zero_variance(&totals) }
}

/// The worker that sampled a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledBy {
    /// Its id.
    pub worker: Uuid,
    /// Its id, host and device, for messages.
    pub name: String,
}

/// A group that a learner could not train on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// The report that contained it.
    pub report: Uuid,
    /// The step of the group.
    pub step: u64,
    /// Position in the step's batch.
    pub index: u32,
    /// The attempt at that position.
    pub attempt: u32,
    /// The policy version that sampled it.
    pub policy_version: Option<u64>,
    /// The worker that sampled it, if known.
    pub worker: Option<SampledBy>,
    /// The reason why it could not be trained on.
    pub cause: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero_variance(rewards: [(f64, &[f64]); 2]) -> bool {
        let item = |&reward: &f64| v1::RankReward { first_token: 0, end_token: 1, reward };
        let reward = |(total, items): (f64, &[f64])| v1::Reward {
            total: Some(total),
            terms: vec![],
            ranks: items.iter().map(item).collect(),
        };
        let group = v1::ScoredGroup { rewards: rewards.map(reward).into(), ..Default::default() };
        filled(&group).zero_variance
    }

    #[test]
    fn a_group_is_replaced_only_if_nothing_in_it_differs() {
        assert!(zero_variance([(1.0, &[]), (1.0, &[])]));
        assert!(!zero_variance([(1.0, &[]), (0.5, &[])]));
        assert!(zero_variance([(1.0, &[0.5, 0.5]), (1.0, &[0.5, 0.5])]));
        assert!(!zero_variance([(1.0, &[1.0, 0.0]), (1.0, &[0.0, 1.0])]), "items differ where totals do not");
        assert!(!zero_variance([(1.0, &[1.0]), (1.0, &[1.0, 0.0])]));
    }
}
