//! Group-relative advantages.
//!
//! `A_i = (R_i − mean(R)) / (std(R) + 1e-4)` over the group's scored completions (`DeepSeekMath`, arXiv 2402.03300, with
//! TRL's constant and its n − 1 standard deviation).

use crate::options::ScaleRewards;

/// Added to the standard deviation, as TRL does.
pub const STD_EPSILON: f64 = 1e-4;

/// The advantages of one step's groups, `rewards[group][completion]` in, the same shape out.
///
/// A completion without a reward is left out of mean and deviation and gets advantage 0. A group whose rewards are all
/// equal gets 0 throughout, and so does one with fewer than two scored completions under [`ScaleRewards::Group`].
pub fn advantages(rewards: &[Vec<Option<f64>>], scale: ScaleRewards) -> Vec<Vec<f64>> {
    let batch_std = match scale {
        ScaleRewards::Batch => std(rewards.iter().flatten().flatten().copied()),
        ScaleRewards::Group | ScaleRewards::None => 0.0,
    };
    rewards
        .iter()
        .map(|group| {
            let scored = || group.iter().flatten().copied();
            let mean = mean(scored());
            let divisor = match scale {
                ScaleRewards::Group => std(scored()) + STD_EPSILON,
                ScaleRewards::Batch => batch_std + STD_EPSILON,
                ScaleRewards::None => 1.0,
            };
            let equal = has_zero_variance(group);
            let advantage = |reward: &Option<f64>| match reward {
                Some(reward) if !equal => (reward - mean) / divisor,
                _ => 0.0,
            };
            group.iter().map(advantage).collect()
        })
        .collect()
}

/// Whether a group's scored rewards are all equal, so that it moves the policy nowhere.
pub fn has_zero_variance(rewards: &[Option<f64>]) -> bool {
    let mut scored = rewards.iter().flatten();
    scored.next().is_none_or(|first| scored.all(|reward| reward.total_cmp(first).is_eq()))
}

/// The mean, 0 of nothing.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// The n − 1 standard deviation, 0 of fewer than two values.
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

    fn scored(rewards: &[f64]) -> Vec<Option<f64>> {
        rewards.iter().copied().map(Some).collect()
    }

    #[test]
    fn a_worked_example() {
        let groups = [scored(&[0.0, 1.0, 2.0]), scored(&[5.0, 5.0, 5.0])];
        let by_group = advantages(&groups, ScaleRewards::Group);
        assert!((by_group[0][2] - 1.0 / 1.0001).abs() < 1e-12);
        assert_eq!(by_group[1], [0.0; 3]);
        assert_eq!(advantages(&groups, ScaleRewards::None)[0], [-1.0, 0.0, 1.0]);
        let all = [0.0, 1.0, 2.0, 5.0, 5.0, 5.0];
        let expected = 1.0 / (std(all.into_iter()) + STD_EPSILON);
        assert!((advantages(&groups, ScaleRewards::Batch)[0][2] - expected).abs() < 1e-12);
    }

    #[test]
    fn an_unscored_completion_is_left_out() {
        let result = advantages(&[vec![Some(1.0), None, Some(3.0)]], ScaleRewards::None);
        assert_eq!(result[0], [-1.0, 0.0, 1.0]);
        assert_eq!(advantages(&[vec![None, None]], ScaleRewards::Group)[0], [0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn advantages_sum_to_nothing_and_keep_the_order(rewards in prop::collection::vec(-10.0..10.0_f64, 2..16)) {
            for scale in [ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None] {
                let result = &advantages(&[scored(&rewards)], scale)[0];
                prop_assert!(result.iter().sum::<f64>().abs() < 1e-6);
                for (a, b) in rewards.iter().zip(result).zip(rewards.iter().zip(result).skip(1)).map(|(x, y)| (x.0 - y.0, x.1 - y.1)) {
                    prop_assert!(a * b >= 0.0);
                }
            }
        }
    }
}
