//! The record of one held-out user's answer in an evaluation: sufficient to recompute every metric, without texts.

use serde::{Deserialize, Serialize};

use super::baseline::{by_score, order_by_score};
use crate::completion::Form;
use crate::ids::{ItemId, UserId};

/// A line of `answers/<version>.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankedAnswer {
    /// The user.
    pub user: UserId,
    /// The target.
    pub target: ItemId,
    /// The candidates in the order of the prompt.
    pub candidates: Vec<ItemId>,
    /// Format of the answer.
    pub form: Form,
    /// The listed items, best first, also of malformed answers.
    pub listed: Vec<ItemId>,
    /// Number of tokens of the completion.
    pub tokens: usize,
    /// Whether the completion was truncated at `rollout.max_new_tokens`.
    pub cut_off: bool,
    /// Log-probability of each candidate as the next listed item, if candidates were scored; `null` stands for NaN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<Option<f64>>,
}

impl RankedAnswer {
    /// Returns the listed items, best first; `None` if the answer is malformed.
    pub fn generated(&self) -> Option<&[ItemId]> {
        self.form.is_well_formed().then_some(self.listed.as_slice())
    }

    /// Returns the first listed item if it is a candidate, whatever the format of the answer.
    pub fn named_candidate(&self) -> Option<ItemId> {
        self.listed.first().copied().filter(|item| self.candidates.contains(item))
    }

    /// Returns all candidates, most probable first; ties keep the order of the list. `None` if they were not scored.
    pub fn by_likelihood(&self) -> Option<Vec<ItemId>> {
        let scored = !self.logprobs.is_empty() && self.logprobs.len() == self.candidates.len();
        let score = |logprob: &Option<f64>| logprob.unwrap_or(f64::NAN);
        scored.then(|| by_score(&self.candidates, &self.logprobs.iter().map(score).collect::<Vec<f64>>()))
    }
}

/// The ranking of the whole catalogue for one held-out user: the target and all items outside the user's whole history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueAnswer {
    /// The user.
    pub user: UserId,
    /// The target.
    pub target: ItemId,
    /// Number of ranked items.
    pub candidates: usize,
    /// Rank of the target, from 1.
    pub rank: usize,
    /// Score of the target; `null` stands for NaN.
    pub score: Option<f64>,
    /// The first [`Self::TOP`] items, best first.
    pub top: Vec<ItemId>,
    /// Their scores.
    pub top_scores: Vec<Option<f64>>,
}

impl CatalogueAnswer {
    /// Number of items in [`Self::top`], unless there are fewer candidates.
    pub const TOP: usize = 100;

    /// Ranks `candidates` by descending score; ties keep the order of the list, NaN is ranked last.
    ///
    /// # Panics
    /// If the numbers of candidates and scores differ, or `target` is not a candidate.
    pub fn of(user: UserId, target: ItemId, candidates: &[ItemId], scores: &[f64]) -> Self {
        assert_eq!(candidates.len(), scores.len(), "one score per candidate");
        let order = order_by_score(scores);
        let rank = order.iter().position(|&position| candidates[position] == target);
        let rank = rank.expect("the target is a candidate");
        let score = |&position: &usize| Some(scores[position]).filter(|score| !score.is_nan());
        let top = &order[..Self::TOP.min(order.len())];
        Self {
            user,
            target,
            candidates: candidates.len(),
            rank: rank + 1,
            score: score(&order[rank]),
            top: top.iter().map(|&position| candidates[position]).collect(),
            top_scores: top.iter().map(score).collect(),
        }
    }

    /// Whether the numbers agree: the rank is one of the candidates, the first items are complete, and the target is
    /// among them at its rank.
    pub fn is_consistent(&self) -> bool {
        let listed = self.candidates.min(Self::TOP);
        (1..=self.candidates).contains(&self.rank)
            && self.top.len() == listed
            && self.top_scores.len() == listed
            && self.top.get(self.rank - 1).is_none_or(|&item| item == self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(form: Form, logprobs: &[Option<f64>]) -> RankedAnswer {
        RankedAnswer {
            user: UserId(1),
            target: ItemId(5),
            candidates: [5, 2, 9].map(ItemId).into(),
            form,
            listed: [9, 5].map(ItemId).into(),
            tokens: 8,
            cut_off: false,
            logprobs: logprobs.into(),
        }
    }

    #[test]
    fn a_malformed_answer_ranks_nothing() {
        assert_eq!(answer(Form::WellFormed, &[]).generated(), Some(&[9, 5].map(ItemId)[..]));
        assert_eq!(answer(Form::ShortList, &[]).generated(), None);
    }

    #[test]
    fn a_malformed_answer_may_name_a_candidate() {
        assert_eq!(answer(Form::ShortList, &[]).named_candidate(), Some(ItemId(9)));
        let other = RankedAnswer { listed: [7, 9].map(ItemId).into(), ..answer(Form::NotACandidate, &[]) };
        assert_eq!(other.named_candidate(), None);
    }

    #[test]
    fn likelihood_ranks_all_candidates_or_none() {
        let ranking = |logprobs: &[Option<f64>]| answer(Form::ShortList, logprobs).by_likelihood();
        assert_eq!(ranking(&[Some(-2.0), None, Some(-1.0)]), Some([9, 5, 2].map(ItemId).into()));
        assert_eq!(ranking(&[Some(-1.0); 3]), Some([5, 2, 9].map(ItemId).into()));
        assert_eq!(ranking(&[Some(-1.0); 2]), None);
        assert_eq!(ranking(&[]), None);
    }

    #[test]
    fn the_catalogue_is_ranked_by_score() {
        let items = [5, 2, 9, 4].map(ItemId);
        let answer = CatalogueAnswer::of(UserId(1), ItemId(2), &items, &[-3.0, -1.5, f64::NAN, -1.5]);
        assert_eq!((answer.rank, answer.score, answer.candidates), (1, Some(-1.5), 4));
        assert_eq!(answer.top, [2, 4, 5, 9].map(ItemId), "ties keep the order of the list");
        assert_eq!(answer.top_scores, [Some(-1.5), Some(-1.5), Some(-3.0), None]);
        let line = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<CatalogueAnswer>(&line).unwrap(), answer, "{line}");
    }

    #[test]
    fn a_damaged_ranking_is_not_consistent() {
        let items = [5, 2, 9].map(ItemId);
        let answer = CatalogueAnswer::of(UserId(1), ItemId(2), &items, &[-3.0, -1.5, -2.0]);
        assert!(answer.is_consistent());
        for rank in [0, 2, 4] {
            assert!(!CatalogueAnswer { rank, ..answer.clone() }.is_consistent(), "{rank}");
        }
        for candidates in [2, 4] {
            assert!(!CatalogueAnswer { candidates, ..answer.clone() }.is_consistent(), "{candidates}");
        }
        let long: Vec<ItemId> = (0..150).map(ItemId).collect();
        let last = CatalogueAnswer::of(UserId(1), ItemId(149), &long, &[0.0; 150]);
        assert!(last.rank == 150 && last.is_consistent());
    }

    #[test]
    fn a_line_round_trips() {
        for logprobs in [&[][..], &[Some(-0.25), None, Some(-3.5)]] {
            let answer = answer(Form::InventedItem, logprobs);
            let line = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<RankedAnswer>(&line).unwrap(), answer, "{line}");
        }
    }
}
