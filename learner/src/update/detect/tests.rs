use std::time::Duration;

use podium_grpo::{PolicyVersion, RankCredit};
use podium_model::{LoadOptions, Policy};

use super::*;
use crate::collective::Alone;
use crate::collective::tcp::Tcp;
use crate::testing::{VOCABULARY, config, part, run_file, stars, step, timeless};
use crate::update::Metrics;
use crate::update::tests::{numbers, updater};

/// A step whose behaviour log-probabilities are the policy's own.
fn own_step(updater: &Updater, number: u64) -> Share {
    let mut share = step(number);
    let groups: Vec<&Group> = share.groups.iter().collect();
    let scores = updater.policy().score(&packed(&groups).unwrap(), 1.0, Entropy::Skipped).unwrap();
    let mut logprobs = Vec::<f32>::try_from(scores.logprobs).unwrap().into_iter();
    for completion in share.groups.iter_mut().flat_map(|group| &mut group.completions) {
        completion.logprobs = logprobs.by_ref().take(completion.len()).collect();
    }
    share
}

fn unusable(result: Result<Vec<Metrics>, Error>) -> Vec<(u32, String)> {
    match result.unwrap_err() {
        Error::Unusable { groups, .. } => {
            groups.into_iter().map(|group| (group.index, group.cause)).collect()
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_gap_over_the_bound_is_detected_before_any_change() {
    let file = run_file(&["learner.max_logprob_gap_nats=0.5", "learner.groups_per_micro_batch=2"]);
    let mut bounded = updater(&file);
    let good = own_step(&bounded, 0);
    let change = |distance: f32| {
        let mut share = good.clone();
        share.groups[3].completions[1].logprobs[4] -= distance;
        // Groups of another version are exempt from the bound.
        share.groups[4].policy_version = PolicyVersion(7);
        share.groups[4].completions[0].logprobs[0] -= 3.0;
        share
    };
    let before = numbers(&bounded);
    let found = unusable(bounded.update(&change(0.51), &mut Alone));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].0 == 3 && found[0].1.contains("at most 0.5 (learner.max_logprob_gap_nats)"),
        "{found:?}"
    );
    assert!(numbers(&bounded) == before);
    assert_eq!(bounded.next_step(), Step(0));
    // Within the bound, and without one, the step is unchanged.
    let mut unbounded =
        updater(&run_file(&["learner.max_logprob_gap_nats=0.0", "learner.groups_per_micro_batch=2"]));
    let expected = unbounded.update(&change(0.49), &mut Alone).unwrap();
    assert_eq!(timeless(&bounded.update(&change(0.49), &mut Alone).unwrap()), timeless(&expected));
    assert!(numbers(&bounded) == numbers(&unbounded), "looking changes no bit");
}

#[test]
fn the_bound_looks_through_an_adapters_dropout() {
    let adapter =
        ["lora.rank=2", "lora.dropout=0.9", "lora.alpha=400.0", "learner.max_logprob_gap_nats=0.01"];
    let file = run_file(&adapter);
    let policy = Policy::random(&config(), 5, LoadOptions::default()).unwrap();
    let mut updater = Updater::new(crate::lora::prepare(policy, &file).unwrap(), &file);
    // A new adapter changes nothing: after a step its dropout makes a difference.
    let first = own_step(&updater, 0);
    updater.update(&first, &mut Alone).unwrap();
    let mut share = own_step(&updater, 1);
    share.groups[1].completions[0].logprobs[0] -= 0.02;
    let found = unusable(updater.update(&share, &mut Alone));
    assert_eq!(found.iter().map(|group| group.0).collect::<Vec<_>>(), [1]);
    let metrics = updater.update(&own_step(&updater, 1), &mut Alone).unwrap();
    assert!(metrics[0]["sampling/sampling_logp_difference/max"] > 0.01, "dropout alone is over the bound");
}

#[test]
fn all_ranks_learn_of_one_ranks_group() {
    let file = run_file(&["learner.max_logprob_gap_nats=0.5"]);
    let found = stars(3, Duration::from_secs(30), |star| {
        let mut collective = Tcp::new(star);
        let (mut updater, rank) = (updater(&file), collective.rank());
        let mut whole = own_step(&updater, 0);
        whole.groups[4].completions[2].logprobs[0] = -100.0;
        let before = numbers(&updater);
        let found = unusable(updater.update(&part(&whole, rank, 3), &mut collective));
        assert!(numbers(&updater) == before);
        let good = part(&own_step(&updater, 0), rank, 3);
        updater.update(&good, &mut collective).unwrap();
        found.into_iter().map(|(index, _)| index).collect::<Vec<_>>()
    });
    assert_eq!(found, [vec![], vec![4], vec![]]);
}

#[test]
fn a_group_without_a_finite_gradient_is_found_among_the_others() {
    // Sampled by an older version, so that the bound does not apply, with a ratio that overflows.
    let file = run_file(&["grpo.beta=0.0", "rollout.max_policy_lag=1"]);
    let spoil = |share: &mut Share, groups: std::ops::Range<usize>| {
        for group in &mut share.groups[groups] {
            group.policy_version = PolicyVersion(0);
            group.completions.iter_mut().for_each(|completion| completion.logprobs.fill(-104.0));
        }
    };
    let mut updater = updater(&file);
    updater.update(&own_step(&updater, 0), &mut Alone).unwrap();
    let before = numbers(&updater);
    let good = own_step(&updater, 1);
    let mut bad = good.clone();
    spoil(&mut bad, 3..4);
    let found = unusable(updater.update(&bad, &mut Alone));
    assert_eq!(found, [(3, "its gradient is infinite or not a number".to_owned())]);
    // If it applies to every group, the groups are not at fault.
    let mut all_bad = good.clone();
    spoil(&mut all_bad, 0..5);
    let error = updater.update(&all_bad, &mut Alone).unwrap_err();
    assert!(matches!(error, Error::Optimizer { step: 1, .. }), "{error}");
    assert!(numbers(&updater) == before);
    updater.update(&good, &mut Alone).unwrap();
}

#[test]
fn groups_that_do_not_fit_are_detected_before_the_step() {
    let updater = updater(&run_file(&["rollout.group_size=3"]));
    let mut share = step(2);
    assert_eq!(updater.unusable(&share), []);
    share.groups[0].completions[0].token_ids[1] = VOCABULARY;
    share.groups[1].prompt_ids = vec![1; 70];
    share.groups[2].policy_version = PolicyVersion(1);
    share.groups[3].completions.pop();
    share.groups[4].id.attempt = 3;
    share.groups[4].rank_credits[0] = vec![RankCredit { tokens: 0..1, reward: 1.0 }];
    let found = updater.unusable(&share);
    let causes =
        ["token id 17", "limit is 64", "policy version 1", "expected 3", "credits by rank other than"];
    assert_eq!(found.len(), causes.len());
    for (index, (found, cause)) in found.iter().zip(causes).enumerate() {
        assert!(found.index as usize == index && found.cause.contains(cause), "{found:?}: {cause}");
    }
    assert_eq!(found[4].attempt, 3);
}
