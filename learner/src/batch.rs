//! Cuts a step's groups into micro-batches and computes the weight of each token.
//!
//! Pure: no tensors. Advantages and token weights are those of the whole step, so that their sums do not depend on
//! the cut into micro-batches or ranks.

use podium_grpo::advantage::{self, Advantages, advantages};
use podium_grpo::options::Aggregation;
use podium_grpo::plan::{self, Credited, ItemError, Plan, StepSize};
use podium_grpo::{Completion, Group, GroupRewards, Options, PolicyVersion, RankCredit, Step};

/// One rank's share of a step, with the rewards of the whole step.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The step's number.
    pub step: Step,
    /// This rank's groups, by index.
    pub groups: Vec<Group>,
    /// Rewards of every group of the step, by index.
    pub step_rewards: Vec<GroupRewards>,
    /// The weight of each reward term.
    pub reward_weights: Vec<f64>,
    /// Completion tokens of the step, over all ranks.
    pub tokens_in_step: u64,
}

/// An inconsistent share.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
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
    /// Groups are not in ascending order of their indices.
    #[error("group {index} follows group {before}: expected ascending indices")]
    Order {
        /// The later group.
        index: u32,
        /// The group before it.
        before: u32,
    },
    /// The step has no such group, or its number of rewards differs from the number of completions.
    #[error("group {index} has {completions} completions, the step has {rewards} rewards for it")]
    Rewards {
        /// Its index.
        index: u32,
        /// Number of completions.
        completions: usize,
        /// Number of rewards that the step lists for it.
        rewards: usize,
    },
    /// A group's size differs from the run file's.
    #[error("group {index} has {found} completions: expected {expected} (rollout.group_size)")]
    Size {
        /// Its index.
        index: u32,
        /// Number of completions.
        found: usize,
        /// `rollout.group_size`
        expected: u32,
    },
    /// A completion's number of reward terms differs from the number of weights.
    #[error(
        "a completion of group {index} has {terms} reward terms: expected {weights}, one for each weight"
    )]
    Terms {
        /// The group's index.
        index: usize,
        /// Number of reward terms.
        terms: usize,
        /// Number of weights.
        weights: usize,
    },
    /// A group's credits differ from those that the step lists for it.
    #[error("group {index} has credits by rank other than those that the step lists for it")]
    Credits {
        /// Its index.
        index: u32,
    },
    /// A completion's listed items do not fit its tokens.
    #[error("completion {completion} of group {index}: {source}")]
    Items {
        /// The group's index.
        index: u32,
        /// The completion's index.
        completion: usize,
        /// The cause.
        source: ItemError,
    },
    /// A group was sampled by a version outside the allowed lag.
    #[error(
        "group {index} of step {step} was sampled by {version}: expected a version from {oldest} to {step}"
    )]
    Version {
        /// Its index.
        index: u32,
        /// The share's step.
        step: u64,
        /// The policy version that sampled it.
        version: PolicyVersion,
        /// The oldest allowed version.
        oldest: u64,
    },
    /// The share has more tokens than the step.
    #[error("the share of step {step} has {found} completion tokens, the whole step has {expected}")]
    Tokens {
        /// The step.
        step: u64,
        /// Tokens in the share.
        found: u64,
        /// Tokens in the step.
        expected: u64,
    },
}

impl Share {
    /// Checks that a group was sampled by a version at most `most` older than the step, and by no newer one.
    pub fn check_age(&self, group: &Group, most: u64) -> Result<(), Error> {
        let (step, oldest) = (self.step.0, self.step.0.saturating_sub(most));
        let (index, version) = (group.id.index, group.policy_version);
        if (oldest..=step).contains(&version.0) {
            Ok(())
        } else {
            Err(Error::Version { index, step, version, oldest })
        }
    }

    /// Checks that groups and rewards are consistent and contain the data that the options require.
    pub fn check(&self, options: &Options) -> Result<(), Error> {
        for group in &self.groups {
            self.check_group(group, options)?;
        }
        for pair in self.groups.windows(2) {
            let (before, index) = (pair[0].id.index, pair[1].id.index);
            if index <= before {
                return Err(Error::Order { index, before });
            }
        }
        if options.multi_objective_aggregation == Aggregation::NormalizeThenSum {
            (0..self.step_rewards.len()).try_for_each(|index| self.check_terms(index))?;
        }
        let found = self.groups.iter().map(|group| tokens(group) as u64).sum();
        if found > self.tokens_in_step {
            let expected = self.tokens_in_step;
            return Err(Error::Tokens { step: self.step.0, found, expected });
        }
        Ok(())
    }

    /// Checks that a group and its rewards are consistent and contain the data that the options require.
    pub fn check_group(&self, group: &Group, options: &Options) -> Result<(), Error> {
        let index = group.id.index;
        if group.id.step != self.step {
            return Err(Error::Step { index, found: group.id.step.0, expected: self.step.0 });
        }
        let completions = group.completions.len();
        let earned = self.step_rewards.get(index as usize);
        let rewards = earned.map_or(0, |earned| earned.totals.len());
        if completions != rewards {
            return Err(Error::Rewards { index, completions, rewards });
        }
        if earned.is_some_and(|earned| earned.ranks != group.rank_credits) {
            return Err(Error::Credits { index });
        }
        for (completion, one) in group.completions.iter().enumerate() {
            let items = plan::check_items(items(group, completion), one.len());
            items.map_err(|source| Error::Items { index, completion, source })?;
        }
        if options.multi_objective_aggregation == Aggregation::NormalizeThenSum {
            self.check_terms(index as usize)?;
        }
        Ok(())
    }

    fn check_terms(&self, index: usize) -> Result<(), Error> {
        let weights = self.reward_weights.len();
        let Some(earned) = self.step_rewards.get(index) else { return Ok(()) };
        let found = earned.terms.iter().map(Vec::len).find(|terms| *terms != weights);
        let missing = (earned.terms.len() != earned.totals.len()).then_some(0);
        found.or(missing).map_or(Ok(()), |terms| Err(Error::Terms { index, terms, weights }))
    }

    /// Completions of the whole step.
    pub fn completions_in_step(&self) -> usize {
        self.step_rewards.iter().map(|earned| earned.totals.len()).sum()
    }

    /// Number of completion tokens of this share that are part of the loss.
    pub fn active_tokens(&self, options: &Options) -> u64 {
        let completions = self.groups.iter().flat_map(|group| &group.completions);
        let active = completions.filter(|completion| plan::counts(completion, options));
        active.map(|completion| completion.len() as u64).sum()
    }

    /// Fraction of the step's groups with equal rewards.
    pub fn zero_variance_share(&self) -> f64 {
        let equal = |earned: &&GroupRewards| advantage::has_zero_variance(&earned.totals);
        let count = self.step_rewards.iter().filter(equal).count();
        count as f64 / self.step_rewards.len().max(1) as f64
    }

    /// Cuts the share into micro-batches of at most `groups_per_micro_batch` groups. `size`: size of the whole step.
    ///
    /// Groups with a gradient come first. If the objective has neither a KL term nor an entropy bonus, groups with
    /// equal rewards have none: their micro-batches need no backward.
    pub fn micro_batches(
        &self,
        options: &Options,
        size: &StepSize,
        groups_per_micro_batch: usize,
    ) -> Vec<MicroBatch<'_>> {
        let advantages = advantages(&self.step_rewards, &self.reward_weights, options);
        let plan = |groups: &[&Group]| {
            let credited = groups.iter().flat_map(|group| credited(group, &advantages));
            Plan::new(credited, options, size)
        };
        let always = options.beta != 0.0 || options.entropy_coef != 0.0;
        let moves = |group: &&Group| always || plan(&[group]).has_advantages();
        let (moving, still): (Vec<&Group>, Vec<&Group>) = self.groups.iter().partition(moves);
        let mut batches = Vec::new();
        for (groups, moves) in [(moving, true), (still, false)] {
            for groups in groups.chunks(groups_per_micro_batch.max(1)) {
                batches.push(MicroBatch {
                    groups: groups.to_vec(),
                    moves,
                    plan: plan(groups),
                    behaviour_logprobs: behaviour_logprobs(groups),
                });
            }
        }
        batches
    }
}

/// A group's completions with their advantages and those of their items.
fn credited<'a>(group: &'a Group, step: &'a Advantages) -> impl Iterator<Item = Credited<'a>> {
    let index = group.id.index as usize;
    group.completions.iter().enumerate().map(move |(number, completion)| Credited {
        completion,
        advantage: step.completions[index][number],
        items: items(group, number),
        item_advantages: &step.ranks[index][number],
    })
}

fn items(group: &Group, completion: usize) -> &[RankCredit] {
    group.rank_credits.get(completion).map_or(&[], Vec::as_slice)
}

/// Returns `None` if one of the completions has none.
fn behaviour_logprobs(groups: &[&Group]) -> Option<Vec<f32>> {
    let completions = || groups.iter().flat_map(|group| &group.completions);
    let known = completions().all(|completion| completion.logprobs.len() == completion.len());
    known.then(|| completions().flat_map(|completion| &completion.logprobs).copied().collect())
}

/// Groups that are computed together. Lists have one entry per completion token, in (group, completion, token) order.
#[derive(Debug, Clone, PartialEq)]
pub struct MicroBatch<'a> {
    /// The groups, by index.
    pub groups: Vec<&'a Group>,
    /// Whether the objective has a gradient for these groups.
    pub moves: bool,
    /// Advantages and weights of each token.
    pub plan: Plan,
    /// Behaviour log-probabilities in nats; `None` if one of the groups was recorded without.
    pub behaviour_logprobs: Option<Vec<f32>>,
}

/// Completion tokens of a group.
pub(crate) fn tokens(group: &Group) -> usize {
    group.completions.iter().map(Completion::len).sum()
}

#[cfg(test)]
mod tests {
    use podium_grpo::options::{Credit, LossType};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{group, share, size};

    #[test]
    fn groups_are_as_old_as_they_may_be() {
        let mut share = share(3, vec![group(3, 0, &[2], &[1.0])]);
        share.groups[0].policy_version = PolicyVersion(1);
        let check = |share: &Share, most| share.check_age(&share.groups[0], most);
        check(&share, 2).unwrap();
        let old = check(&share, 1).unwrap_err().to_string();
        assert!(old.contains("policy version 1") && old.contains("from 2 to 3"), "{old}");
        share.groups[0].policy_version = PolicyVersion(4);
        assert!(matches!(check(&share, 2), Err(Error::Version { step: 3, .. })));
    }

    #[test]
    fn inconsistent_shares_are_refused() {
        let mut groups = vec![group(3, 0, &[2, 0], &[1.0, 0.0]), group(3, 2, &[1, 1], &[1.0, 1.0])];
        groups[0].rank_credits = vec![vec![RankCredit { tokens: 0..2, reward: 1.0 }], vec![]];
        let good = share(3, groups);
        let sum = Options::default();
        good.check(&sum).unwrap();
        let refused = |options: &Options, change: fn(&mut Share)| {
            let mut share = good.clone();
            change(&mut share);
            share.check(options).unwrap_err()
        };
        let step = refused(&sum, |share| share.step = Step(4));
        assert_eq!(step, Error::Step { index: 0, found: 3, expected: 4 });
        let order = refused(&sum, |share| share.groups.swap(0, 1));
        assert_eq!(order, Error::Order { index: 0, before: 2 });
        let rewards = refused(&sum, |share| share.step_rewards.truncate(2));
        assert!(matches!(rewards, Error::Rewards { index: 2, .. }));
        assert!(matches!(refused(&sum, |share| share.tokens_in_step = 3), Error::Tokens { found: 4, .. }));
        let credits = refused(&sum, |share| share.step_rewards[0].ranks[0][0].reward = 2.0);
        assert_eq!(credits, Error::Credits { index: 0 });
        let items = refused(&sum, |share| {
            for credits in [&mut share.groups[0].rank_credits, &mut share.step_rewards[0].ranks] {
                credits[0][0].tokens.end = 3;
            }
        });
        assert!(matches!(items, Error::Items { index: 0, completion: 0, .. }));
        let separate =
            Options { multi_objective_aggregation: Aggregation::NormalizeThenSum, ..Options::default() };
        let terms = refused(&separate, |share| share.reward_weights = vec![1.0]);
        assert_eq!(terms, Error::Terms { index: 0, terms: 0, weights: 1 });
    }

    #[test]
    fn equal_rewards_need_no_backward_without_a_kl_term() {
        let share = share(0, vec![group(0, 0, &[1, 2], &[1.0, 1.0]), group(0, 1, &[1, 1], &[0.0, 1.0])]);
        let cut = |options: &Options| -> Vec<(u32, bool)> {
            let batches = share.micro_batches(options, &size(&share, options), 8);
            batches.iter().map(|batch| (batch.groups[0].id.index, batch.moves)).collect()
        };
        assert_eq!(cut(&Options::default()), [(1, true), (0, false)]);
        assert_eq!(cut(&Options { beta: 0.1, ..Options::default() }), [(0, true)]);
        assert_eq!(cut(&Options { entropy_coef: 0.1, ..Options::default() }), [(0, true)]);
        assert!((share.zero_variance_share() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn items_move_a_group_whose_completions_do_not() {
        let mut group = group(0, 0, &[2, 2], &[1.0, 1.0]);
        let credit = |reward| vec![RankCredit { tokens: 1..2, reward }];
        group.rank_credits = vec![credit(1.0), credit(3.0)];
        let share = share(0, vec![group]);
        let options = Options {
            credit: Credit::Rank,
            scale_rewards: podium_grpo::options::ScaleRewards::None,
            ..Options::default()
        };
        let batches = share.micro_batches(&options, &size(&share, &options), 8);
        assert!(batches[0].moves);
        assert_eq!(batches[0].plan.advantages, [0.0, -1.0, 0.0, 1.0]);
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
            let batches = share.micro_batches(&options, &size(&share, &options), per_batch);
            let mut seen: Vec<u32> = batches.iter().flat_map(|b| b.groups.iter().map(|g| g.id.index)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len() as u32).collect::<Vec<_>>());
            let weights: f64 = batches.iter().flat_map(|batch| &batch.plan.weights).sum();
            let written = lengths.iter().flatten().filter(|length| **length > 0).count();
            let expected = match loss_type {
                LossType::Grpo => written as f64 / (lengths.len() * 3) as f64,
                _ => f64::from(u8::from(written > 0)),
            };
            prop_assert!((weights - expected).abs() < 1e-9);
            for batch in &batches {
                prop_assert!(batch.groups.len() <= per_batch);
                prop_assert_eq!(batch.behaviour_logprobs.as_ref().map(Vec::len), Some(batch.plan.len()));
            }
        }
    }
}
