//! From a step's groups to micro-batches: which groups go through the policy together, and what each token counts for.
//!
//! Pure: no tensors. Advantages and token weights are those of the whole step, so that no cut into micro-batches or
//! ranks changes what they sum up to.

use podium_grpo::advantage::{self, advantages};
use podium_grpo::objective::token_weight;
use podium_grpo::{Group, Options, Step};

/// One rank's share of a step, and what has to be known of the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Which step.
    pub step: Step,
    /// This rank's groups, by index.
    pub groups: Vec<Group>,
    /// Total rewards of every group of the step: `[index][completion]`.
    pub step_rewards: Vec<Vec<Option<f64>>>,
    /// Completion tokens of the step, over all ranks.
    pub tokens_in_step: u64,
}

/// A share that does not hold together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A group of another step.
    #[error("group {index} is of step {found}: expected {expected}")]
    Step {
        /// Its index.
        index: u32,
        /// Its step.
        found: u64,
        /// The share's step.
        expected: u64,
    },
    /// Groups are not in the order of their indices, or one is there twice.
    #[error("group {index} follows group {before}: expected ascending indices")]
    Order {
        /// The later one.
        index: u32,
        /// The one before it.
        before: u32,
    },
    /// A group that the step does not have, or another number of rewards than completions.
    #[error("group {index} has {completions} completions, the step has {rewards} rewards for it")]
    Rewards {
        /// Its index.
        index: u32,
        /// Completions it has.
        completions: usize,
        /// Rewards that the step lists for it.
        rewards: usize,
    },
    /// The tokens of the share are more than those of the step.
    #[error("the share of step {step} has {found} completion tokens, the whole step {expected}")]
    Tokens {
        /// Which step.
        step: u64,
        /// Tokens in the share.
        found: u64,
        /// Tokens in the step.
        expected: u64,
    },
}

impl Share {
    /// Checks that groups and rewards belong together.
    pub fn check(&self) -> Result<(), Error> {
        for group in &self.groups {
            let index = group.id.index;
            if group.id.step != self.step {
                return Err(Error::Step { index, found: group.id.step.0, expected: self.step.0 });
            }
            let completions = group.completions.len();
            let rewards = self.step_rewards.get(index as usize).map_or(0, Vec::len);
            if completions != rewards {
                return Err(Error::Rewards { index, completions, rewards });
            }
        }
        for pair in self.groups.windows(2) {
            let (before, index) = (pair[0].id.index, pair[1].id.index);
            if index <= before {
                return Err(Error::Order { index, before });
            }
        }
        let found = self.groups.iter().map(|group| tokens(group) as u64).sum();
        if found > self.tokens_in_step {
            let expected = self.tokens_in_step;
            return Err(Error::Tokens { step: self.step.0, found, expected });
        }
        Ok(())
    }

    /// Completions of the whole step.
    pub fn completions_in_step(&self) -> usize {
        self.step_rewards.iter().map(Vec::len).sum()
    }

    /// Share of the step's groups whose rewards are all equal.
    pub fn zero_variance_share(&self) -> f64 {
        let equal = |rewards: &&Vec<Option<f64>>| advantage::has_zero_variance(rewards);
        let count = self.step_rewards.iter().filter(equal).count();
        count as f64 / self.step_rewards.len().max(1) as f64
    }

    /// Cuts the share into micro-batches of at most `groups_per_micro_batch` groups.
    ///
    /// Groups that can move the policy come first. Where the objective has no KL term, groups with equal rewards cannot:
    /// their micro-batches need no backward.
    pub fn micro_batches(&self, options: &Options, groups_per_micro_batch: usize) -> Vec<MicroBatch<'_>> {
        let advantages = advantages(&self.step_rewards, options.scale_rewards);
        let moves = |group: &&Group| {
            options.beta != 0.0
                || advantages[group.id.index as usize].iter().any(|advantage| *advantage != 0.0)
        };
        let (moving, still): (Vec<&Group>, Vec<&Group>) = self.groups.iter().partition(moves);
        let mut batches = Vec::new();
        for (groups, moves) in [(moving, true), (still, false)] {
            for groups in groups.chunks(groups_per_micro_batch.max(1)) {
                batches.push(self.micro_batch(groups, moves, &advantages, options));
            }
        }
        batches
    }

    fn micro_batch<'a>(
        &self,
        groups: &[&'a Group],
        moves: bool,
        step_advantages: &[Vec<f64>],
        options: &Options,
    ) -> MicroBatch<'a> {
        let count: usize = groups.iter().map(|group| tokens(group)).sum();
        let mut batch = MicroBatch {
            groups: groups.to_vec(),
            moves,
            old_logprobs: Vec::with_capacity(count),
            advantages: Vec::with_capacity(count),
            weights: Vec::with_capacity(count),
        };
        for group in groups {
            let advantages = &step_advantages[group.id.index as usize];
            for (completion, advantage) in group.completions.iter().zip(advantages) {
                let length = completion.len();
                let completions = self.completions_in_step();
                let weight =
                    token_weight(options.loss_type, length, completions, self.tokens_in_step as usize);
                batch.old_logprobs.extend_from_slice(&completion.logprobs);
                batch.advantages.resize(batch.advantages.len() + length, *advantage);
                batch.weights.resize(batch.weights.len() + length, weight);
            }
        }
        batch
    }
}

/// Groups that go through the policy together. The lists have one entry a completion token, in (group, completion,
/// token) order.
#[derive(Debug, Clone, PartialEq)]
pub struct MicroBatch<'a> {
    /// The groups, by index.
    pub groups: Vec<&'a Group>,
    /// Whether the objective has a gradient here.
    pub moves: bool,
    /// Behaviour log-probabilities, in nats.
    pub old_logprobs: Vec<f32>,
    /// The advantage of the token's completion.
    pub advantages: Vec<f64>,
    /// What the token's loss counts for in the step's.
    pub weights: Vec<f64>,
}

fn tokens(group: &Group) -> usize {
    group.completions.iter().map(podium_grpo::Completion::len).sum()
}

#[cfg(test)]
mod tests {
    use podium_grpo::options::LossType;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{group, share};

    #[test]
    fn what_does_not_hold_together_is_refused() {
        let good = share(3, vec![group(3, 0, &[2, 0], &[1.0, 0.0]), group(3, 2, &[1, 1], &[1.0, 1.0])]);
        good.check().unwrap();
        let refused = |change: fn(&mut Share)| {
            let mut share = good.clone();
            change(&mut share);
            share.check().unwrap_err()
        };
        assert!(matches!(
            refused(|share| share.step = Step(4)),
            Error::Step { index: 0, found: 3, expected: 4 }
        ));
        assert!(matches!(refused(|share| share.groups.swap(0, 1)), Error::Order { index: 0, before: 2 }));
        assert!(matches!(refused(|share| share.step_rewards.truncate(2)), Error::Rewards { index: 2, .. }));
        assert!(matches!(refused(|share| share.tokens_in_step = 3), Error::Tokens { found: 4, .. }));
    }

    #[test]
    fn equal_rewards_need_no_backward_without_a_kl_term() {
        let share = share(0, vec![group(0, 0, &[1, 2], &[1.0, 1.0]), group(0, 1, &[1, 1], &[0.0, 1.0])]);
        let batches = share.micro_batches(&Options::default(), 8);
        let summary: Vec<_> = batches.iter().map(|batch| (batch.groups[0].id.index, batch.moves)).collect();
        assert_eq!(summary, [(1, true), (0, false)]);
        let with_kl = share.micro_batches(&Options { beta: 0.1, ..Options::default() }, 8);
        assert_eq!(with_kl.len(), 1);
        assert!((share.zero_variance_share() - 0.5).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn every_token_is_in_one_micro_batch_with_the_weight_of_the_step(
            lengths in prop::collection::vec(prop::collection::vec(0..5_usize, 3), 1..7), per_batch in 1..4_usize,
            loss_type in prop::sample::select(vec![LossType::Grpo, LossType::Dapo]),
        ) {
            let groups = lengths.iter().enumerate()
                .map(|(index, lengths)| group(0, index as u32, lengths, &[0.0, 0.5 * (index % 3) as f64, 1.0]));
            let share = share(0, groups.collect());
            let options = Options { loss_type, ..Options::default() };
            let batches = share.micro_batches(&options, per_batch);
            let mut seen: Vec<u32> = batches.iter().flat_map(|b| b.groups.iter().map(|g| g.id.index)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len() as u32).collect::<Vec<_>>());
            let weights: f64 = batches.iter().flat_map(|batch| &batch.weights).sum();
            let written = lengths.iter().flatten().filter(|length| **length > 0).count();
            let expected = match loss_type {
                LossType::Dapo => f64::from(u8::from(written > 0)),
                LossType::Grpo => written as f64 / (lengths.len() * 3) as f64,
            };
            prop_assert!((weights - expected).abs() < 1e-9);
            for batch in &batches {
                prop_assert!(batch.groups.len() <= per_batch);
                prop_assert_eq!(batch.old_logprobs.len(), batch.weights.len());
                prop_assert_eq!(batch.advantages.len(), batch.weights.len());
            }
        }
    }
}
