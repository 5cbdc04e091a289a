//! The record of one held-out user's answer in an evaluation: sufficient to recompute every metric, without texts.

use serde::{Deserialize, Serialize};

use super::by_score;
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

    /// Returns all candidates, most probable first; ties keep the order of the list. `None` if they were not scored.
    pub fn by_likelihood(&self) -> Option<Vec<ItemId>> {
        let scored = !self.logprobs.is_empty() && self.logprobs.len() == self.candidates.len();
        let score = |logprob: &Option<f64>| logprob.unwrap_or(f64::NAN);
        scored.then(|| by_score(&self.candidates, &self.logprobs.iter().map(score).collect::<Vec<f64>>()))
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
    fn likelihood_ranks_all_candidates_or_none() {
        let ranking = |logprobs: &[Option<f64>]| answer(Form::ShortList, logprobs).by_likelihood();
        assert_eq!(ranking(&[Some(-2.0), None, Some(-1.0)]), Some([9, 5, 2].map(ItemId).into()));
        assert_eq!(ranking(&[Some(-1.0); 3]), Some([5, 2, 9].map(ItemId).into()));
        assert_eq!(ranking(&[Some(-1.0); 2]), None);
        assert_eq!(ranking(&[]), None);
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
