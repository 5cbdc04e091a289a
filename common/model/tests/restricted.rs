//! Tokens that are restricted to sets: sampled from them, and scored under the distribution renormalised over them,
//! in sampling and in training.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use std::sync::Arc;

use podium_grpo::{FinishReason, Sampling};
use podium_model::generate::Error;
use podium_model::{
    Batch, Config, Entropy, Family, Generated, GroupTokens, Packed, Policy, TrainingOptions, generate,
    generate_restricted, packed,
};
use tch::{Device, Kind, Tensor};

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1, 2, 3, 4, 5], vec![6], vec![7, 8, 9, 1, 2, 3, 4]]
}

fn uniform(prompt: usize, sample: usize, position: usize) -> f64 {
    (prompt as f64 * 0.37 + sample as f64 * 0.71 + f64::from(position as u32) * 0.618_033).fract()
}

/// Sets that depend on the sampled tokens: none at first, then few or many, then only the stop token.
fn allowed(_prompt: usize, sample: usize, token_ids: &[u32]) -> Option<Arc<[u32]>> {
    let last = token_ids.last().copied().unwrap_or(0);
    match token_ids.len() {
        length if length < 2 + sample % 2 => None,
        9 => Some([36].into()),
        length if (length as u32 + last).is_multiple_of(3) => Some([4, 11, 12, 19, 30].into()),
        length if (length as u32 + last) % 3 == 1 => Some((5..35).collect::<Vec<_>>().into()),
        _ => Some([last % 36].into()),
    }
}

fn at_once(prompts: &[Vec<u32>], group_size: usize) -> Batch<'_> {
    Batch { prompts, group_size, prefill_tokens: usize::MAX }
}

fn sampled(policy: &Policy, sampling: &Sampling) -> Generated {
    let never = || false;
    generate_restricted(policy, at_once(&prompts(), 4), sampling, &uniform, &mut allowed, &never).unwrap()
}

/// The completions as a batch to score.
fn pack(generated: &Generated) -> Packed {
    let prompts = prompts();
    let groups = prompts.iter().zip(&generated.groups);
    let groups: Vec<_> = groups
        .map(|(prompt, group)| GroupTokens {
            prompt,
            completions: group.iter().map(|one| one.token_ids.as_slice()).collect(),
        })
        .collect();
    let completions = generated.groups.iter().flatten().enumerate();
    let sets = completions.flat_map(|(index, one)| {
        one.allowed.iter().map(move |set| (index, set.position as usize, &*set.token_ids))
    });
    Packed::new(&groups).unwrap().restricted(sets).unwrap()
}

/// Returns each completion token's log-probability and entropy by the second implementation.
fn renormalised(policy: &Policy, generated: &Generated, temperature: f64) -> (Tensor, Tensor) {
    let (mut logprobs, mut entropies) = (Vec::new(), Vec::new());
    for (prompt, group) in prompts().iter().zip(&generated.groups) {
        for one in group {
            let sequence = [prompt.as_slice(), &one.token_ids].concat();
            let all = naive::distributions(policy, &sequence[..sequence.len() - 1], temperature);
            for (position, token) in one.token_ids.iter().enumerate() {
                let row = all.get((prompt.len() - 1 + position) as i64);
                let set = one.allowed.iter().find(|set| set.position as usize == position);
                let (row, place) = match set {
                    Some(set) => {
                        let ids: Vec<_> = set.token_ids.iter().map(|id| i64::from(*id)).collect();
                        let row = row.index_select(0, &Tensor::from_slice(&ids));
                        (
                            row.log_softmax(-1, Kind::Double),
                            set.token_ids.binary_search(token).unwrap() as i64,
                        )
                    }
                    None => (row, i64::from(*token)),
                };
                logprobs.push(row.get(place));
                entropies.push(-(row.exp() * &row).sum(Kind::Double));
            }
        }
    }
    (Tensor::stack(&logprobs, 0), Tensor::stack(&entropies, 0))
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn scoring_reproduces_the_log_probabilities_of_sampling() {
    let policy = naive::policy(&naive::config(Family::Qwen3), 5);
    for temperature in [1.0, 0.7, 1.6] {
        let sampling =
            Sampling { temperature, max_new_tokens: 14, stop_token_ids: vec![36], ..Sampling::default() };
        let generated = sampled(&policy, &sampling);
        assert_eq!(generated, sampled(&policy, &sampling));
        for one in generated.groups.iter().flatten() {
            assert_eq!(one.finish_reason, FinishReason::Stop);
            for set in &one.allowed {
                assert!(set.token_ids.contains(&one.token_ids[set.position as usize]));
            }
        }
        let all: Vec<_> = generated.groups.iter().flatten().collect();
        assert!(all.iter().map(|one| one.allowed.len()).sum::<usize>() > 40);
        let recorded: Vec<f32> = all.iter().flat_map(|one| one.logprobs.clone()).collect();
        let recorded = Tensor::from_slice(&recorded);
        let scores = policy.score(&pack(&generated), temperature, Entropy::Measured).unwrap();
        let (logprobs, entropies) = renormalised(&policy, &generated, temperature);
        assert!(largest_difference(&recorded, &scores.logprobs) < 1e-5, "{temperature}");
        assert!(largest_difference(&recorded, &logprobs) < 1e-5, "{temperature}");
        assert!(largest_difference(&scores.entropy.unwrap(), &entropies) < 1e-5, "{temperature}");
    }
}

#[test]
fn tokens_follow_the_renormalised_distribution() {
    let policy = naive::policy(&naive::config(Family::Qwen3), 6);
    let (prompt, set) = (prompts().remove(0), [3_u32, 8, 20, 21, 36]);
    let after = naive::distributions(&policy, &prompt, 0.8).get(prompt.len() as i64 - 1);
    let expected: Vec<f64> = Vec::try_from(after.exp()).unwrap();
    let mass: f64 = set.iter().map(|token| expected[*token as usize]).sum();
    let share_of = |sampling: &Sampling| {
        let spread = |_, sample: usize, _| (sample as f64 + 0.5) / 2000.0;
        let mut only = |_: usize, _: usize, _: &[u32]| Some(set.into());
        let sampling = Sampling { temperature: 0.8, max_new_tokens: 1, ..sampling.clone() };
        let batch = at_once(std::slice::from_ref(&prompt), 2000);
        let drawn = generate_restricted(&policy, batch, &sampling, &spread, &mut only, &|| false).unwrap();
        set.map(|token| {
            let of_token = drawn.groups[0].iter().filter(|one| one.token_ids == [token]);
            for one in of_token.clone() {
                let logprob = (expected[token as usize] / mass).ln();
                assert!((f64::from(one.logprobs[0]) - logprob).abs() < 1e-5);
            }
            (of_token.clone().count() as f64 / 2000.0, of_token.clone().next().cloned())
        })
    };
    for (token, (share, _)) in set.iter().zip(share_of(&Sampling::default())) {
        assert!((share - expected[*token as usize] / mass).abs() < 1e-3, "{token}: {share}");
    }
    // Filters apply within the set: the two likeliest of the five remain.
    let mut ranked = set;
    ranked.sort_by(|one, other| expected[*other as usize].total_cmp(&expected[*one as usize]));
    let best: f64 = ranked[..2].iter().map(|token| expected[*token as usize]).sum();
    for (token, (share, one)) in set.iter().zip(share_of(&Sampling { top_k: 2, ..Sampling::default() })) {
        let kept = if ranked[..2].contains(token) { expected[*token as usize] / best } else { 0.0 };
        assert!((share - kept).abs() < 1e-3, "{token}: {share}");
        if let Some(one) = one {
            assert!((f64::from(one.sampled_logprobs.unwrap()[0]) - kept.ln()).abs() < 1e-5);
        }
    }
    let greedy = share_of(&Sampling { greedy: true, ..Sampling::default() });
    for (token, (share, _)) in set.iter().zip(greedy) {
        assert!((share - f64::from(*token == ranked[0])).abs() < 1e-9);
    }
}

#[test]
fn a_restriction_to_the_whole_vocabulary_changes_nothing() {
    let policy = naive::policy(&naive::config(Family::Qwen3), 7);
    let sampling = Sampling { max_new_tokens: 8, top_p: 0.9, ..Sampling::default() };
    let free = generate(&policy, &prompts(), 3, &sampling, &uniform, &|| false).unwrap();
    let mut all = |_: usize, _: usize, _: &[u32]| Some((0..37).collect());
    let full = generate_restricted(&policy, at_once(&prompts(), 3), &sampling, &uniform, &mut all, &|| false)
        .unwrap();
    for (free, full) in free.groups.iter().flatten().zip(full.groups.iter().flatten()) {
        assert_eq!((&free.token_ids, &free.logprobs), (&full.token_ids, &full.logprobs));
        assert_eq!(free.sampled_logprobs, full.sampled_logprobs);
    }
}

fn gradients(policy: &mut Policy, loss: impl FnOnce(&Policy)) -> Vec<Tensor> {
    policy.set_training(true);
    policy.clear_gradients();
    loss(policy);
    policy.trainable().iter().map(|(_, tensor)| tensor.grad().copy()).collect()
}

fn assert_same_gradients(found: &[Tensor], expected: &[Tensor]) {
    for (found, expected) in found.iter().zip(expected) {
        let scale = expected.abs().max().double_value(&[]).max(1.0);
        let difference = largest_difference(found, expected);
        assert!(difference < 2e-5 * scale, "{difference} of {scale}");
    }
}

#[test]
fn gradients_match_the_renormalised_distribution() {
    let mut policy = naive::policy(&naive::config(Family::Qwen3), 8);
    let sampling = Sampling { max_new_tokens: 12, stop_token_ids: vec![36], ..Sampling::default() };
    let generated = sampled(&policy, &sampling);
    let batch = pack(&generated);
    let count = batch.completion_tokens() as i64;
    let weights = (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 1.7).sin();
    let loss = |logprobs: &Tensor, entropies: &Tensor| {
        (logprobs * &weights).sum(Kind::Double) + (entropies * &weights * 0.3).sum(Kind::Double)
    };
    let expected = gradients(&mut policy, |policy| {
        let (logprobs, entropies) = renormalised(policy, &generated, 0.8);
        loss(&logprobs, &entropies).backward();
    });
    for recompute_layers in [false, true] {
        let entropy = Entropy::Differentiable;
        let options = TrainingOptions { temperature: 0.8, entropy, recompute_layers, dropout: None };
        let found = gradients(&mut policy, |policy| {
            let pass = policy.training_pass(&batch, options).unwrap();
            loss(&pass.scores().logprobs, pass.scores().entropy.as_ref().unwrap()).backward();
            pass.backward();
        });
        assert_same_gradients(&found, &expected);
    }
}

#[test]
fn chunks_of_the_head_change_nothing() {
    // Large enough for three chunks, with a reference small enough for one at a time.
    let config = Config {
        vocab_size: 1_000_000,
        hidden_size: 4,
        num_hidden_layers: 1,
        ..naive::config(Family::Qwen3)
    };
    let mut policy = naive::policy(&config, 7);
    let completions: Vec<Vec<u32>> = (0..4).map(|one| (0..9).map(|at| 7 * one + at).collect()).collect();
    let set = |completion: usize, position: usize| {
        let chosen = completions[completion][position];
        (!position.is_multiple_of(3))
            .then(|| (chosen.saturating_sub(position as u32)..chosen + 4).collect::<Vec<_>>())
    };
    let pack = |completions_of: &[usize]| {
        let own = completions_of.iter().map(|one| completions[*one].as_slice()).collect();
        let sets: Vec<_> = completions_of
            .iter()
            .enumerate()
            .flat_map(|(index, one)| {
                (0..9).filter_map(move |position| Some((index, position, set(*one, position)?)))
            })
            .collect();
        let sets = sets.iter().map(|(index, position, set)| (*index, *position, set.as_slice()));
        Packed::new(&[GroupTokens { prompt: &[1, 2, 3], completions: own }])
            .unwrap()
            .restricted(sets)
            .unwrap()
    };
    let options = TrainingOptions { entropy: Entropy::Differentiable, ..Default::default() };
    let mut run = |batches: &[Packed]| {
        let mut logprobs = Vec::new();
        let gradients = gradients(&mut policy, |policy| {
            for batch in batches {
                let pass = policy.training_pass(batch, options).unwrap();
                let entropy = pass.scores().entropy.as_ref().unwrap();
                (pass.scores().logprobs.sum(Kind::Float) + entropy.sum(Kind::Float) * 0.1).backward();
                logprobs.push(pass.scores().logprobs.detach());
                pass.backward();
            }
        });
        (Tensor::cat(&logprobs, 0), gradients)
    };
    let (whole, whole_gradients) = run(&[pack(&[0, 1, 2, 3])]);
    let (parts, parts_gradients) = run(&[pack(&[0]), pack(&[1]), pack(&[2]), pack(&[3])]);
    assert!(largest_difference(&whole, &parts) < 1e-5);
    assert_same_gradients(&whole_gradients, &parts_gradients);
}

#[test]
fn sets_that_do_not_fit_are_refused() {
    let batch = || Packed::new(&[GroupTokens { prompt: &[1], completions: vec![&[4, 5], &[6]] }]).unwrap();
    let refused = |sets: &[(usize, usize, &[u32])]| batch().restricted(sets.iter().copied()).unwrap_err();
    batch().restricted([(0, 1, [5_u32].as_slice()), (1, 0, &[2, 6, 9])]).unwrap();
    assert_eq!(refused(&[(0, 2, &[6])]), packed::Error::NoToken { completion: 0, position: 2 });
    assert_eq!(refused(&[(2, 0, &[6])]), packed::Error::NoToken { completion: 2, position: 0 });
    for sets in [
        [(0, 0, [3_u32, 5].as_slice()), (0, 1, &[5])],
        [(0, 0, &[5, 4]), (0, 1, &[5])],
        [(0, 0, &[]), (0, 1, &[5])],
        [(0, 0, &[4]), (0, 0, &[4])],
    ] {
        assert!(matches!(refused(&sets), packed::Error::Restriction { chosen: 4, .. }));
    }
    let policy = naive::policy(&naive::config(Family::Qwen3), 9);
    let outside = batch().restricted([(0, 0, [4_u32, 37].as_slice())]).unwrap();
    let error = policy.score(&outside, 1.0, Entropy::Skipped).unwrap_err();
    assert_eq!(error, packed::Error::Vocabulary { token: 37, vocab_size: 37 });

    let sampled = |set: &[u32]| {
        let set: Arc<[u32]> = set.into();
        let mut only = |_: usize, _: usize, _: &[u32]| Some(set.clone());
        let never = || false;
        generate_restricted(
            &policy,
            at_once(&prompts(), 1),
            &Sampling::default(),
            &uniform,
            &mut only,
            &never,
        )
        .unwrap_err()
    };
    assert!(matches!(sampled(&[]), Error::NothingAllowed { prompt: 0, sample: 0, position: 0 }));
    assert!(matches!(sampled(&[37]), Error::Prompts(packed::Error::Vocabulary { token: 37, .. })));
}
