//! Group-relative advantages of completions and of the items that they list.
//!
//! `A_i = (R_i − mean(R)) / (std(R) + 1e-4)` over the group's scored completions (`DeepSeekMath`, arXiv 2402.03300, with
//! TRL's constant and its n − 1 standard deviation). The k-th items of a group's completions are normalised against
//! each other by the same formula (Rank-GRPO, arXiv 2510.20150).

use crate::group::GroupRewards;
use crate::options::{Aggregation, Credit, Options, ScaleRewards};

/// Added to the standard deviation, as TRL does.
pub const STD_EPSILON: f64 = 1e-4;

/// The advantages of a step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Advantages {
    /// `[group][completion]`.
    pub completions: Vec<Vec<f64>>,
    /// `[group][completion][rank]`, one per listed item; empty unless credit is by rank.
    pub ranks: Vec<Vec<Vec<f64>>>,
}

/// Computes the advantages of one step's groups. `weights` of the reward terms are read only by
/// [`Aggregation::NormalizeThenSum`].
///
/// A completion without a reward is excluded from mean and deviation and has advantage 0. A group with equal rewards or
/// with a single scored completion has zero advantage.
pub fn advantages(rewards: &[GroupRewards], weights: &[f64], options: &Options) -> Advantages {
    let totals: Vec<Vec<Option<f64>>> = rewards.iter().map(|group| group.totals.clone()).collect();
    let completions = match options.multi_objective_aggregation {
        Aggregation::SumThenNormalize => normalized(&totals, options.scale_rewards),
        Aggregation::NormalizeThenSum => {
            let sums: Vec<_> = rewards.iter().map(|group| sum_of_normalized(group, weights)).collect();
            over_the_step(&sums)
        }
    };
    let ranks = match options.credit {
        Credit::Completion => rewards.iter().map(|group| vec![Vec::new(); group.totals.len()]).collect(),
        Credit::Rank => by_rank(rewards, options.scale_rewards),
    };
    Advantages { completions, ranks }
}

/// Centres `rewards[group][completion]` within each group and scales them.
fn normalized(rewards: &[Vec<Option<f64>>], scale: ScaleRewards) -> Vec<Vec<f64>> {
    let batch_std = match scale {
        ScaleRewards::Batch => std(rewards.iter().flatten().flatten().copied()),
        ScaleRewards::Group | ScaleRewards::None => 0.0,
    };
    let divisor = |group: &[Option<f64>]| match scale {
        ScaleRewards::Group => std(group.iter().flatten().copied()) + STD_EPSILON,
        ScaleRewards::Batch => batch_std + STD_EPSILON,
        ScaleRewards::None => 1.0,
    };
    rewards
        .iter()
        .map(|group| {
            let mean = mean(group.iter().flatten().copied());
            let (divisor, equal) = (divisor(group), has_zero_variance(group));
            let advantage = |reward: &Option<f64>| match reward {
                Some(reward) if !equal => (reward - mean) / divisor,
                _ => 0.0,
            };
            group.iter().map(advantage).collect()
        })
        .collect()
}

/// Normalises each term within the group and returns the weighted sums; `None` for a completion without a reward.
fn sum_of_normalized(group: &GroupRewards, weights: &[f64]) -> Vec<Option<f64>> {
    let mut sums: Vec<Option<f64>> = group.totals.iter().map(|total| total.map(|_| 0.0)).collect();
    for (index, weight) in weights.iter().enumerate() {
        let term = |(total, terms): (&Option<f64>, &Vec<f64>)| total.and_then(|_| terms.get(index).copied());
        let values: Vec<_> = group.totals.iter().zip(&group.terms).map(term).collect();
        let values = normalized(&[values], ScaleRewards::Group).remove(0);
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.map(|sum| sum + weight * value);
        }
    }
    sums
}

/// Centres and scales over all groups of the step. Groups with equal sums get zero advantage.
fn over_the_step(sums: &[Vec<Option<f64>>]) -> Vec<Vec<f64>> {
    let all = || sums.iter().flatten().flatten().copied();
    let (mean, divisor) = (mean(all()), std(all()) + STD_EPSILON);
    let group = |group: &Vec<Option<f64>>| {
        let equal = has_zero_variance(group);
        let advantage = |sum: &Option<f64>| match sum {
            Some(sum) if !equal => (sum - mean) / divisor,
            _ => 0.0,
        };
        group.iter().map(advantage).collect()
    };
    sums.iter().map(group).collect()
}

/// For each rank, normalises the items that the group's completions list at that rank.
fn by_rank(rewards: &[GroupRewards], scale: ScaleRewards) -> Vec<Vec<Vec<f64>>> {
    let ranks = rewards.iter().flat_map(|group| &group.ranks).map(Vec::len).max().unwrap_or(0);
    let mut result: Vec<Vec<Vec<f64>>> =
        rewards.iter().map(|group| vec![Vec::new(); group.totals.len()]).collect();
    for rank in 0..ranks {
        let of_group = |group: &GroupRewards| {
            let item = |completion: usize| Some(group.ranks.get(completion)?.get(rank)?.reward);
            (0..group.totals.len()).map(item).collect()
        };
        let at_rank: Vec<Vec<Option<f64>>> = rewards.iter().map(of_group).collect();
        let advantages = normalized(&at_rank, scale);
        for (group, (rewards, advantages)) in at_rank.iter().zip(advantages).enumerate() {
            for (completion, advantage) in advantages.into_iter().enumerate() {
                if rewards[completion].is_some() {
                    result[group][completion].push(advantage);
                }
            }
        }
    }
    result
}

/// Whether a group's scored rewards are all equal, so that it contributes no gradient.
pub fn has_zero_variance(rewards: &[Option<f64>]) -> bool {
    let mut scored = rewards.iter().flatten();
    scored.next().is_none_or(|first| scored.all(|reward| reward.total_cmp(first).is_eq()))
}

/// Returns the mean, or 0 without values.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// Returns the n − 1 standard deviation, or 0 for fewer than two values.
pub fn std(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let centre = mean(values.clone());
    let (squares, count) =
        values.fold((0.0, 0_u32), |(sum, count), value| (sum + (value - centre).powi(2), count + 1));
    if count < 2 { 0.0 } else { (squares / f64::from(count - 1)).sqrt() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::group::RankCredit;

    fn scored(rewards: &[f64]) -> GroupRewards {
        GroupRewards { totals: rewards.iter().copied().map(Some).collect(), ..GroupRewards::default() }
    }

    fn scaled(scale_rewards: ScaleRewards) -> Options {
        Options { scale_rewards, ..Options::default() }
    }

    fn of_completions(groups: &[GroupRewards], scale: ScaleRewards) -> Vec<Vec<f64>> {
        advantages(groups, &[], &scaled(scale)).completions
    }

    #[test]
    fn advantages_match_a_worked_example() {
        let groups = [scored(&[0.0, 1.0, 2.0]), scored(&[5.0, 5.0, 5.0])];
        let by_group = of_completions(&groups, ScaleRewards::Group);
        assert!((by_group[0][2] - 1.0 / 1.0001).abs() < 1e-12);
        assert_eq!(by_group[1], [0.0; 3]);
        assert_eq!(of_completions(&groups, ScaleRewards::None)[0], [-1.0, 0.0, 1.0]);
        let all = [0.0, 1.0, 2.0, 5.0, 5.0, 5.0];
        let expected = 1.0 / (std(all.into_iter()) + STD_EPSILON);
        assert!((of_completions(&groups, ScaleRewards::Batch)[0][2] - expected).abs() < 1e-12);
    }

    #[test]
    fn an_unscored_completion_is_excluded() {
        let group =
            |totals: &[Option<f64>]| GroupRewards { totals: totals.to_vec(), ..GroupRewards::default() };
        let result = of_completions(&[group(&[Some(1.0), None, Some(3.0)])], ScaleRewards::None);
        assert_eq!(result[0], [-1.0, 0.0, 1.0]);
        assert_eq!(of_completions(&[group(&[None, None])], ScaleRewards::Group)[0], [0.0, 0.0]);
    }

    #[test]
    fn terms_count_by_weight_independent_of_their_scale() {
        let options =
            Options { multi_objective_aggregation: Aggregation::NormalizeThenSum, ..Options::default() };
        let group = |terms: &[[f64; 2]]| GroupRewards {
            totals: terms.iter().map(|terms| Some(terms[0] + terms[1])).collect(),
            terms: terms.iter().map(|terms| terms.to_vec()).collect(),
            ..GroupRewards::default()
        };
        // The first term prefers the first completion, the second term, a thousand times as large, the second one.
        let groups = [group(&[[1.0, 0.0], [0.0, 1000.0]]), group(&[[1.0, 2.0], [1.0, 2.0]])];
        let found = advantages(&groups, &[1.0, 0.5], &options).completions;
        assert_eq!(found[1], [0.0, 0.0]);
        let term = |gap: f64| 0.5 * gap / (gap / 2.0_f64.sqrt() + STD_EPSILON);
        let sum = term(1.0) - 0.5 * term(1000.0);
        let expected = sum / (std([sum, -sum, 0.0, 0.0].into_iter()) + STD_EPSILON);
        assert!((found[0][0] - expected).abs() < 1e-12 && (found[0][1] + expected).abs() < 1e-12);
    }

    #[test]
    fn items_are_normalized_within_their_rank() {
        let credits = |rewards: &[f64]| -> Vec<RankCredit> {
            rewards.iter().map(|reward| RankCredit { tokens: 0..1, reward: *reward }).collect()
        };
        let group = GroupRewards {
            ranks: vec![credits(&[1.0, 0.0, 4.0]), credits(&[3.0, 0.0]), credits(&[])],
            ..scored(&[0.0, 0.0, 1.0])
        };
        let other = GroupRewards { ranks: vec![credits(&[10.0]), credits(&[12.0])], ..scored(&[0.0, 1.0]) };
        let by_rank = |scale_rewards| {
            let options = Options { credit: Credit::Rank, ..scaled(scale_rewards) };
            advantages(&[group.clone(), other.clone()], &[], &options).ranks
        };
        // The third item has no competitor; equal items have zero advantage.
        let none = by_rank(ScaleRewards::None);
        assert_eq!(none[0], [vec![-1.0, 0.0, 0.0], vec![1.0, 0.0], vec![]]);
        let divisor = std([1.0, 3.0, 10.0, 12.0].into_iter()) + STD_EPSILON;
        assert!((by_rank(ScaleRewards::Batch)[1][1][0] - 1.0 / divisor).abs() < 1e-12);
        let divisor = 2.0_f64.sqrt() + STD_EPSILON;
        assert!((by_rank(ScaleRewards::Group)[0][1][0] - 1.0 / divisor).abs() < 1e-12);
        let completions = advantages(std::slice::from_ref(&group), &[], &Options::default());
        assert!(completions.ranks[0].iter().all(Vec::is_empty));
    }

    proptest! {
        #[test]
        fn advantages_sum_to_zero_and_preserve_the_order(rewards in prop::collection::vec(-10.0..10.0_f64, 2..16)) {
            for scale in [ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None] {
                let result = &of_completions(&[scored(&rewards)], scale)[0];
                prop_assert!(result.iter().sum::<f64>().abs() < 1e-6);
                for (a, b) in rewards.iter().zip(result).zip(rewards.iter().zip(result).skip(1)).map(|(x, y)| (x.0 - y.0, x.1 - y.1)) {
                    prop_assert!(a * b >= 0.0);
                }
            }
        }
    }
}
