//! Inputs of the objective that do not depend on the policy: for every token its advantage, its weight, and the tokens
//! that share its probability ratio.
//!
//! The reference in [`crate::objective`] and the learner's libtorch loss use the same plan. All values are relative to
//! the whole step, so that the sums do not depend on the split into micro-batches or ranks.

use std::ops::Range;

use crate::group::{Completion, FinishReason, RankCredit};
use crate::options::{Credit, Level, LossType, Options};

/// Size of a step, over all ranks and micro-batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// Number of completions, including masked and empty ones.
    pub completions: usize,
    /// Number of tokens in completions that are not masked.
    pub tokens: u64,
    /// Maximum length of a completion, the divisor of `dr_grpo`.
    pub longest: u32,
}

/// A completion with its advantages.
#[derive(Debug, Clone, Copy)]
pub struct Credited<'a> {
    /// The completion.
    pub completion: &'a Completion,
    /// Its advantage.
    pub advantage: f64,
    /// Its listed items; read only if ratios or credit are by rank.
    pub items: &'a [RankCredit],
    /// The advantage of each item.
    pub item_advantages: &'a [f64],
}

/// The plan of some completions of a step. All lists except `completions` and `ratios` have one entry per token, in
/// (completion, token) order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The tokens of each completion.
    pub completions: Vec<Range<usize>>,
    /// Advantage of the token.
    pub advantages: Vec<f64>,
    /// Weight of the token's loss in the step's loss; 0 in a masked completion.
    pub weights: Vec<f64>,
    /// Weight of the token in a mean over the step's tokens; 0 in a masked completion.
    pub shares: Vec<f64>,
    /// Weight of the token in a mean over the step's ratios: over tokens, or over completions with one ratio each.
    pub ratio_shares: Vec<f64>,
    /// Weight of a completion in a mean over the step's completions.
    pub completion_share: f64,
    /// Tokens of each ratio, in order and without gaps; `None` if every token has its own.
    pub ratios: Option<Vec<Range<usize>>>,
}

impl Plan {
    /// Plans the completions of a step of the given size.
    pub fn new<'a>(
        completions: impl IntoIterator<Item = Credited<'a>>,
        options: &Options,
        size: &StepSize,
    ) -> Self {
        let mut plan = Self {
            completion_share: 1.0 / size.completions.max(1) as f64,
            ratios: (options.importance_sampling_level != Level::Token).then(Vec::new),
            ..Self::default()
        };
        for completion in completions {
            plan.push(&completion, options, size);
        }
        plan
    }

    /// Number of tokens.
    pub const fn len(&self) -> usize {
        self.advantages.len()
    }

    /// Whether the plan has no tokens.
    pub const fn is_empty(&self) -> bool {
        self.advantages.is_empty()
    }

    /// Whether a token's completion is part of the loss.
    pub fn is_active(&self, token: usize) -> bool {
        self.shares[token] > 0.0
    }

    /// Whether any advantage is not zero, so that there is a gradient.
    pub fn has_advantages(&self) -> bool {
        (0..self.len()).any(|token| self.advantages[token] != 0.0 && self.is_active(token))
    }

    fn push(&mut self, credited: &Credited<'_>, options: &Options, size: &StepSize) {
        let (first, length) = (self.len(), credited.completion.len());
        let active = counts(credited.completion, options);
        let only_active = |number: f64| if active { number } else { 0.0 };
        let share = 1.0 / size.tokens.max(1) as f64;
        let of_sequences = options.importance_sampling_level == Level::Sequence;
        let ratio_share =
            if of_sequences { 1.0 / (size.completions.max(1) * length.max(1)) as f64 } else { share };
        let mut fill = |list: fn(&mut Self) -> &mut Vec<f64>, number: f64| {
            list(self).resize(first + length, number);
        };
        fill(|plan| &mut plan.advantages, credited.advantage);
        fill(|plan| &mut plan.weights, only_active(size.token_weight(options.loss_type, length)));
        fill(|plan| &mut plan.shares, only_active(share));
        fill(|plan| &mut plan.ratio_shares, only_active(ratio_share));
        let items = credited.items.iter().map(|item| {
            let Range { start, end } = item.tokens;
            first + start as usize..first + end as usize
        });
        if options.credit == Credit::Rank {
            for (tokens, advantage) in items.clone().zip(credited.item_advantages) {
                self.advantages[tokens].fill(*advantage);
            }
        }
        let tokens = first..first + length;
        if let Some(ratios) = &mut self.ratios {
            match options.importance_sampling_level {
                Level::Sequence if length > 0 => ratios.push(tokens.clone()),
                Level::Rank => push_items(ratios, tokens.clone(), items),
                Level::Token | Level::Sequence => {}
            }
        }
        self.completions.push(tokens);
    }
}

/// Whether a completion is part of the loss.
pub fn counts(completion: &Completion, options: &Options) -> bool {
    !(options.mask_truncated_completions && completion.finish_reason == FinishReason::Length)
}

/// Adds one ratio per item and one per token between items.
fn push_items(
    ratios: &mut Vec<Range<usize>>,
    tokens: Range<usize>,
    items: impl Iterator<Item = Range<usize>>,
) {
    let mut next = tokens.start;
    for item in items.filter(|item| !item.is_empty()) {
        ratios.extend((next..item.start).map(|token| token..token + 1));
        next = item.end;
        ratios.push(item);
    }
    ratios.extend((next..tokens.end).map(|token| token..token + 1));
}

impl StepSize {
    /// Returns the weight of a token's loss in the step's loss, for a completion of `length` tokens.
    pub fn token_weight(&self, loss_type: LossType, length: usize) -> f64 {
        let completions = self.completions.max(1) as f64;
        match loss_type {
            LossType::Grpo | LossType::Sapo => 1.0 / (completions * length.max(1) as f64),
            LossType::Bnpo | LossType::Dapo | LossType::Cispo => 1.0 / self.tokens.max(1) as f64,
            LossType::DrGrpo => 1.0 / (completions * f64::from(self.longest.max(1))),
            LossType::Luspo => 1.0 / completions,
        }
    }
}

/// Invalid token ranges of listed items.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "listed item {item} has the tokens from {} to {}: expected a range from {first} on, within the {length} tokens of the \
     completion", tokens.start, tokens.end
)]
pub struct ItemError {
    /// Index of the item, from 0.
    pub item: usize,
    /// Its tokens.
    pub tokens: Range<u32>,
    /// First token after the earlier items.
    pub first: u32,
    /// Number of tokens of the completion.
    pub length: usize,
}

/// Checks that items are in order, without overlap, and within a completion of `length` tokens.
pub fn check_items(items: &[RankCredit], length: usize) -> Result<(), ItemError> {
    let mut first = 0;
    for (item, RankCredit { tokens, .. }) in items.iter().enumerate() {
        if tokens.start < first || tokens.end < tokens.start || tokens.end as usize > length {
            return Err(ItemError { item, tokens: tokens.clone(), first, length });
        }
        first = tokens.end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: StepSize = StepSize { completions: 4, tokens: 10, longest: 8 };

    fn completion(length: usize, finish_reason: FinishReason) -> Completion {
        Completion {
            token_ids: vec![0; length],
            text: String::new(),
            text_ends: vec![],
            logprobs: vec![0.0; length],
            sampled_logprobs: None,
            allowed: Vec::new(),
            finish_reason,
        }
    }

    fn item(tokens: Range<u32>) -> RankCredit {
        RankCredit { tokens, reward: 0.0 }
    }

    fn plan(options: &Options) -> Plan {
        let completions = [completion(4, FinishReason::Stop), completion(2, FinishReason::Length)];
        let items = [item(1..3)];
        let credited = completions.iter().zip([&items[..], &[]]).map(|(completion, items)| Credited {
            completion,
            advantage: 1.0,
            items,
            item_advantages: &[-2.0],
        });
        Plan::new(credited, options, &SIZE)
    }

    #[test]
    fn each_loss_type_has_its_token_weights() {
        let weights = |loss_type| plan(&Options { loss_type, ..Options::default() }).weights;
        for (loss_type, first, last) in [
            (LossType::Grpo, 1.0 / 16.0, 1.0 / 8.0),
            (LossType::Sapo, 1.0 / 16.0, 1.0 / 8.0),
            (LossType::Bnpo, 0.1, 0.1),
            (LossType::Dapo, 0.1, 0.1),
            (LossType::Cispo, 0.1, 0.1),
            (LossType::DrGrpo, 1.0 / 32.0, 1.0 / 32.0),
            (LossType::Luspo, 0.25, 0.25),
        ] {
            assert_eq!(weights(loss_type), [first, first, first, first, last, last], "{loss_type:?}");
        }
    }

    #[test]
    fn masked_completions_have_zero_weight() {
        let options = Options { mask_truncated_completions: true, ..Options::default() };
        let plan = plan(&options);
        assert_eq!(plan.weights, [0.1, 0.1, 0.1, 0.1, 0.0, 0.0]);
        assert_eq!((plan.shares[3], plan.shares[4]), (0.1, 0.0));
        assert!(plan.is_active(3) && !plan.is_active(4));
    }

    #[test]
    fn ratios_follow_the_level() {
        let ratios = |importance_sampling_level, credit| {
            plan(&Options { credit, importance_sampling_level, ..Options::default() }).ratios
        };
        assert_eq!(ratios(Level::Token, Credit::Completion), None);
        assert_eq!(ratios(Level::Sequence, Credit::Completion), Some(vec![0..4, 4..6]));
        assert_eq!(ratios(Level::Rank, Credit::Rank), Some(vec![0..1, 1..3, 3..4, 4..5, 5..6]));
        let credited = plan(&Options { credit: Credit::Rank, ..Options::default() });
        assert_eq!(credited.advantages, [1.0, -2.0, -2.0, 1.0, 1.0, 1.0]);
        let sequences = plan(&Options { importance_sampling_level: Level::Sequence, ..Options::default() });
        assert_eq!(sequences.ratio_shares, [1.0 / 16.0, 1.0 / 16.0, 1.0 / 16.0, 1.0 / 16.0, 0.125, 0.125]);
    }

    #[test]
    fn items_that_overlap_or_exceed_the_completion_are_rejected() {
        check_items(&[item(0..2), item(2..3), item(5..6)], 6).unwrap();
        assert_eq!(check_items(&[item(0..2), item(1..3)], 6).unwrap_err().item, 1);
        let error = check_items(&[item(0..2), item(2..2), item(2..7)], 6).unwrap_err();
        let expected = "item 2 has the tokens from 2 to 7: expected a range from 2 on, within the 6";
        assert!(error.to_string().contains(expected));
    }
}
