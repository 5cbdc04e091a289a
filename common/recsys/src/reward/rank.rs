//! Rewards of listed items, for credit by rank.
//!
//! One candidate, the target, is relevant, and an answer lists K of N candidates. With d(k) = 1 / log₂(k + 1) for ranks
//! up to K and 0 beyond, and the target at rank t (d(t) = 0 if it is not listed), the item at rank k of a well-formed
//! answer earns
//!
//! - [`ItemCredit::CausalDcg`] (Rank-GRPO, arXiv 2510.20150): Σ rel(j) · d(j) over the ranks j ≥ k. That is d(t) up to
//!   the target and 0 for items listed after it, which do not affect the target's rank.
//! - [`ItemCredit::CounterfactualSwap`] (after `FlexRec`, arXiv 2603.11901): the loss of NDCG@K if the item were
//!   swapped with the best of the candidates that remained when it was listed. Before the target, or without it, the
//!   best is the target: d(t) − d(k) ≤ 0. For the target all others are equally good; it is swapped with one that is
//!   not listed, or with the last of the list if all are listed: d(k), or d(k) − d(K). After the target nothing can be
//!   lost: 0.
//!
//! The items of a malformed answer earn the minimum for their rank in a well-formed one: 0, or −d(k). Defective items
//! earn `item_penalty` less: repeated, invented, not a candidate, or beyond the required K. If no item is defective and
//! the answer is malformed for another reason, all items earn the penalty.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::completion::{Listed, ListedStatus, Parsed};
use crate::ids::ItemId;
use crate::ranking::Metric;

/// Reward of an item for credit by rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemCredit {
    /// The gain of the list from the item's rank on.
    #[default]
    CausalDcg,
    /// The loss of the list if the item were swapped with the best remaining candidate.
    CounterfactualSwap,
}

/// Sizes of the lists in which items are credited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lists {
    /// Required number of items in an answer: K.
    pub(crate) length: usize,
    /// Number of candidates: N.
    pub(crate) candidates: usize,
}

/// A listed item with its reward.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemReward {
    /// Byte range of the entry in the text.
    pub span: Range<usize>,
    /// Its reward.
    pub reward: f64,
}

impl ItemCredit {
    /// Returns the reward of the item at rank `k` of a well-formed answer with the target at rank `target`.
    pub(crate) fn of(self, k: usize, target: Option<usize>, lists: Lists) -> f64 {
        let gain = |rank: Option<usize>| Metric::Ndcg(lists.length).value(rank);
        match self {
            _ if target.is_some_and(|target| target < k) => 0.0,
            Self::CausalDcg => gain(target),
            Self::CounterfactualSwap if target == Some(k) => {
                let all_listed = lists.length >= lists.candidates;
                gain(Some(k)) - if all_listed { gain(Some(lists.length)) } else { 0.0 }
            }
            Self::CounterfactualSwap => gain(target) - gain(Some(k)),
        }
    }

    /// Returns the minimum reward of the item at rank `k` of a well-formed answer, where the target is not listed.
    fn least(self, k: usize, lists: Lists) -> f64 {
        self.of(k, None, lists)
    }

    /// Returns the reward of every listed item of an answer, best rank first.
    pub(crate) fn rewards(
        self,
        parsed: &Parsed<'_>,
        target: ItemId,
        lists: Lists,
        item_penalty: f64,
    ) -> Vec<ItemReward> {
        let at_fault = |(place, listed): (usize, &Listed<'_>)| {
            listed.status != ListedStatus::Candidate || place >= lists.length
        };
        let some_at_fault = parsed.ranking.iter().enumerate().any(at_fault);
        let target = parsed.ranking.iter().position(|listed| listed.item == target).map(|place| place + 1);
        let reward = |(place, listed): (usize, &Listed<'_>)| {
            let rank = place + 1;
            let reward = if parsed.form.is_well_formed() {
                self.of(rank, target, lists)
            } else if !some_at_fault || at_fault((place, listed)) {
                self.least(rank, lists) - item_penalty
            } else {
                self.least(rank, lists)
            };
            ItemReward { span: listed.span.clone(), reward }
        };
        parsed.ranking.iter().enumerate().map(reward).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::{Expected, Layout, Options, ThinkingStart, parse};
    use crate::dataset::{Catalogue, Item};

    const CANDIDATES: [ItemId; 5] = [ItemId(4), ItemId(9), ItemId(2), ItemId(17), ItemId(5)];

    /// Rewards of the items of an answer that has to list three of five; item 4 is the target.
    fn rewards(credit: ItemCredit, answer: &str) -> Vec<f64> {
        let item = |id| Item { id: ItemId(id), title: format!("Title {id}"), caption: None, interactions: 0 };
        let catalogue = Catalogue::new((1..=20).map(item));
        let options = Options { list_length: 3, layout: Layout::Ids, require_thinking: true };
        let thinking_start = ThinkingStart::Absent;
        let expected =
            Expected { options: &options, candidates: &CANDIDATES, catalogue: &catalogue, thinking_start };
        let lists = Lists { length: 3, candidates: CANDIDATES.len() };
        let parsed = parse(answer, &expected);
        let items = credit.rewards(&parsed, ItemId(4), lists, 0.5);
        assert!(items.iter().all(|item| answer[item.span.clone()].starts_with("[ITEM_")));
        items.into_iter().map(|item| item.reward).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
        }
    }

    const D2: f64 = 0.630_929_753_571_457_4;

    #[test]
    fn items_up_to_the_target_share_its_gain() {
        let causal = |answer: &str| rewards(ItemCredit::CausalDcg, &format!("<think>a</think>{answer}"));
        assert_close(&causal("[ITEM_4] [ITEM_9] [ITEM_2]"), &[1.0, 0.0, 0.0]);
        assert_close(&causal("[ITEM_9] [ITEM_4] [ITEM_2]"), &[D2, D2, 0.0]);
        assert_close(&causal("[ITEM_9] [ITEM_2] [ITEM_4]"), &[0.5, 0.5, 0.5]);
        assert_close(&causal("[ITEM_9] [ITEM_2] [ITEM_5]"), &[0.0, 0.0, 0.0]);
    }

    #[test]
    fn an_item_earns_the_loss_of_its_swap() {
        let swap =
            |answer: &str| rewards(ItemCredit::CounterfactualSwap, &format!("<think>a</think>{answer}"));
        assert_close(&swap("[ITEM_4] [ITEM_9] [ITEM_2]"), &[1.0, 0.0, 0.0]);
        assert_close(&swap("[ITEM_9] [ITEM_4] [ITEM_2]"), &[D2 - 1.0, D2, 0.0]);
        assert_close(&swap("[ITEM_9] [ITEM_2] [ITEM_4]"), &[0.5 - 1.0, 0.5 - D2, 0.5]);
        assert_close(&swap("[ITEM_9] [ITEM_2] [ITEM_5]"), &[-1.0, -D2, -0.5]);
        let all = Lists { length: 3, candidates: 3 };
        let of = |k, target| ItemCredit::CounterfactualSwap.of(k, Some(target), all);
        assert_close(&[of(1, 1), of(2, 2), of(3, 3)], &[1.0 - 0.5, D2 - 0.5, 0.0]);
    }

    #[test]
    fn swap_values_match_explicit_swaps() {
        // All lists of three of five candidates, by position; candidate 0 is the target.
        let ndcg = |order: &[usize]| {
            Metric::Ndcg(3).value(order[..3].iter().position(|&item| item == 0).map(|at| at + 1))
        };
        for code in 0..120_usize {
            let mut left: Vec<usize> = (0..5).collect();
            let order: Vec<usize> = (1..=5)
                .rev()
                .scan(code, |code, n| {
                    let at = *code % n;
                    *code /= n;
                    Some(left.remove(at))
                })
                .collect();
            let target = order[..3].iter().position(|&item| item == 0).map(|at| at + 1);
            for k in 1..=3 {
                // The best remaining candidate: the target, or else one that is not listed.
                let best = (k..5).find(|&place| order[place] == 0).unwrap_or(4);
                let mut swapped = order.clone();
                swapped.swap(k - 1, best);
                let found = ItemCredit::CounterfactualSwap.of(k, target, Lists { length: 3, candidates: 5 });
                assert!((found - (ndcg(&order) - ndcg(&swapped))).abs() < 1e-12, "{order:?} at {k}");
            }
        }
    }

    #[test]
    fn defective_items_earn_less_than_any_other() {
        let causal = |answer: &str| rewards(ItemCredit::CausalDcg, answer);
        assert_close(&causal("<think>a</think>[ITEM_4] [ITEM_4] [ITEM_2]"), &[0.0, -0.5, 0.0]);
        assert_close(&causal("<think>a</think>[ITEM_4] [ITEM_99] [ITEM_3]"), &[0.0, -0.5, -0.5]);
        assert_close(&causal("<think>a</think>[ITEM_4] [ITEM_9] [ITEM_2] [ITEM_5]"), &[0.0, 0.0, 0.0, -0.5]);
        for without_defective_item in ["[ITEM_4] [ITEM_9]", "<think>a</think>[ITEM_4] or [ITEM_9]"] {
            assert_close(&causal(without_defective_item), &[-0.5, -0.5]);
        }
        let swap = rewards(ItemCredit::CounterfactualSwap, "<think>a</think>[ITEM_4] [ITEM_4] [ITEM_2]");
        assert_close(&swap, &[-1.0, -D2 - 0.5, -0.5]);
    }
}
