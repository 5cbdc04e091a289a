//! Plain, packed and cached forwards agree with each other and with a second implementation, gradients included.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use podium_grpo::Sampling;
use podium_model::{
    Config, Entropy, Family, GroupTokens, LoadOptions, Packed, Policy, TrainingOptions, generate, packed,
};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn shapes() -> Vec<Config> {
    let qwen3 = naive::config(Family::Qwen3);
    vec![
        qwen3.clone(),
        Config { num_key_value_heads: 6, tie_word_embeddings: false, ..qwen3.clone() },
        Config { num_attention_heads: 3, num_key_value_heads: 1, head_dim: 10, ..qwen3 },
        naive::config(Family::Qwen2),
        Config { qkv_bias: true, output_bias: true, mlp_bias: true, ..naive::config(Family::Llama) },
        naive::config(Family::Llama),
    ]
}

/// Pseudo-random tokens.
fn tokens(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|index| (((index + 1) * (seed * 2 + 7) * 2_654_435) >> 7) % 37).collect()
}

/// Prompt and completions of each group.
type Groups = Vec<(Vec<u32>, Vec<Vec<u32>>)>;

fn groups(lengths: &[(usize, &[usize])]) -> Groups {
    let mut seed = 0;
    let mut next = |length: usize| {
        seed += 1;
        tokens(seed, length)
    };
    let mut group = |(prompt, completions): &(usize, &[usize])| {
        (next(*prompt), completions.iter().map(|length| next(*length)).collect())
    };
    lengths.iter().map(&mut group).collect()
}

fn pack(groups: &Groups) -> Packed {
    let mut tokens = Vec::new();
    for (prompt, completions) in groups {
        tokens.push(GroupTokens { prompt, completions: completions.iter().map(Vec::as_slice).collect() });
    }
    Packed::new(&tokens).unwrap()
}

/// Log-probabilities of all completion tokens by the second implementation, each sequence on its own.
fn unshared(policy: &Policy, groups: &Groups, temperature: f64) -> Tensor {
    let mut parts = vec![Tensor::zeros([0], (Kind::Double, Device::Cpu))];
    for (prompt, completions) in groups {
        for completion in completions {
            let sequence = [prompt.as_slice(), completion].concat();
            let logprobs = naive::logprobs(policy, &sequence, temperature);
            parts.push(logprobs.narrow(0, prompt.len() as i64 - 1, completion.len() as i64));
        }
    }
    Tensor::cat(&parts, 0)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    if a.numel() == 0 { 0.0 } else { (a - b).abs().max().double_value(&[]) }
}

const RAGGED: &[(usize, &[usize])] = &[(9, &[4, 0, 7]), (1, &[1, 1, 0]), (14, &[2, 12, 5])];
const EVEN: &[(usize, &[usize])] = &[(6, &[5, 5]), (6, &[5, 5])];

#[test]
fn plain_forward_matches_the_second_implementation() {
    for config in shapes() {
        let policy = naive::policy(&config, 3);
        let sequence = tokens(1, 40);
        let plain = Tensor::from_slice(&policy.plain_logprobs(&sequence).unwrap());
        let expected = naive::logprobs(&policy, &sequence, 1.0);
        assert!(largest_difference(&plain, &expected) < 1e-5, "{config:?}");
    }
}

#[test]
fn packed_scores_match_unshared_sequences() {
    for config in shapes() {
        let policy = naive::policy(&config, 4);
        for lengths in [RAGGED, EVEN] {
            let groups = groups(lengths);
            let scores = policy.score(&pack(&groups), 0.7, Entropy::Skipped).unwrap();
            let expected = unshared(&policy, &groups, 0.7);
            assert!(largest_difference(&scores.logprobs, &expected) < 1e-5, "{config:?}");
        }
    }
}

#[test]
fn scoring_reproduces_the_log_probabilities_of_decoding() {
    for config in shapes() {
        let policy = naive::policy(&config, 5);
        let prompts = [tokens(1, 9), tokens(2, 3), tokens(3, 17)];
        // Stop tokens make lengths differ, so that finished completions are dropped during decoding.
        let sampling = Sampling {
            temperature: 1.3,
            max_new_tokens: 70,
            stop_token_ids: vec![2, 3, 5],
            ..Sampling::default()
        };
        let uniform = |prompt, sample, position| {
            (prompt as f64 * 0.37 + sample as f64 * 0.71 + f64::from(position as u32) * 0.618_033).fract()
        };
        let generated = generate(&policy, &prompts, 4, &sampling, &uniform, &|| false).unwrap();
        assert_eq!(generated.prefill_tokens, 9 + 3 + 17);
        let groups: Groups = prompts
            .iter()
            .zip(&generated.groups)
            .map(|(prompt, group)| (prompt.clone(), group.iter().map(|one| one.token_ids.clone()).collect()))
            .collect();
        let recorded: Vec<_> =
            generated.groups.iter().flatten().flat_map(|one| one.logprobs.clone()).collect();
        let recorded = Tensor::from_slice(&recorded);
        let scores = policy.score(&pack(&groups), 1.3, Entropy::Skipped).unwrap();
        assert!(largest_difference(&recorded, &scores.logprobs) < 1e-5, "{config:?}");
        assert!(largest_difference(&recorded, &unshared(&policy, &groups, 1.3)) < 1e-5, "{config:?}");
    }
}

/// Gradients of Σ weight · log-probability (+ 0.1 Σ entropy) for every parameter.
fn gradients(policy: &mut Policy, loss: impl FnOnce(&Policy)) -> Vec<(String, Tensor)> {
    policy.set_training(true);
    policy.clear_gradients();
    loss(policy);
    let gradient = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.grad().copy());
    policy.trainable().iter().map(gradient).collect()
}

fn token_weights(count: usize) -> Tensor {
    (Tensor::arange(count as i64, (Kind::Float, Device::Cpu)) * 1.7).sin()
}

fn assert_same_gradients(found: &[(String, Tensor)], expected: &[(String, Tensor)]) {
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        let scale = expected.abs().max().double_value(&[]).max(1e-3);
        let difference = largest_difference(found, expected);
        assert!(difference < 2e-5 * scale.max(1.0), "{name}: {difference} of {scale}");
    }
}

#[test]
fn packed_gradients_match_unshared_sequences() {
    for config in shapes() {
        let mut policy = naive::policy(&config, 6);
        for lengths in [RAGGED, EVEN] {
            let groups = groups(lengths);
            let batch = pack(&groups);
            let weights = token_weights(batch.completion_tokens());
            let expected = gradients(&mut policy, |policy| {
                (unshared(policy, &groups, 0.8) * &weights).sum(Kind::Double).backward();
            });
            for recompute_layers in [false, true] {
                let options = TrainingOptions { temperature: 0.8, recompute_layers, ..Default::default() };
                let found = gradients(&mut policy, |policy| {
                    let pass = policy.training_pass(&batch, options).unwrap();
                    (&pass.scores().logprobs * &weights).sum(Kind::Float).backward();
                    pass.backward();
                });
                assert_same_gradients(&found, &expected);
            }
        }
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
    let groups = groups(&[(5, &[9, 11]), (4, &[12, 8])]);
    let options = TrainingOptions { entropy: Entropy::Differentiable, ..Default::default() };
    let mut run = |groups: &[&Groups]| {
        let mut logprobs = Vec::new();
        let gradients = gradients(&mut policy, |policy| {
            for groups in groups {
                let pass = policy.training_pass(&pack(groups), options).unwrap();
                let scores = pass.scores();
                let entropy = scores.entropy.as_ref().unwrap();
                (scores.logprobs.sum(Kind::Float) + entropy.sum(Kind::Float) * 0.1).backward();
                logprobs.push(scores.logprobs.detach());
                pass.backward();
            }
        });
        (Tensor::cat(&logprobs, 0), gradients)
    };
    let (whole, whole_gradients) = run(&[&groups]);
    let one = |group: usize, completion: usize| -> Groups {
        vec![(groups[group].0.clone(), vec![groups[group].1[completion].clone()])]
    };
    let (parts, parts_gradients) = run(&[&one(0, 0), &one(0, 1), &one(1, 0), &one(1, 1)]);
    assert!(largest_difference(&whole, &parts) < 1e-5);
    assert_same_gradients(&whole_gradients, &parts_gradients);
}

#[test]
fn entropy_is_that_of_the_distribution() {
    let policy = naive::policy(&naive::config(Family::Qwen3), 8);
    let (prompt, temperature) = (tokens(1, 6), 0.6);
    let scores = |completion: Vec<u32>| {
        policy
            .score(&pack(&vec![(prompt.clone(), vec![completion])]), temperature, Entropy::Measured)
            .unwrap()
    };
    let all: Vec<_> =
        (0..37).map(|token| scores(vec![token]).logprobs.double_value(&[0])).map(f64::exp).collect();
    assert!((all.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    let entropy: f64 = all.iter().map(|p| -p * p.ln()).sum();
    let measured = scores(vec![0]).entropy.unwrap().double_value(&[0]);
    assert!((entropy - measured).abs() < 1e-5, "{entropy} {measured}");
}

#[test]
fn bfloat16_is_close_to_float32() {
    let policy = naive::policy(&naive::config(Family::Qwen3), 14);
    let folder = tempfile::tempdir().unwrap();
    policy.save(folder.path()).unwrap();
    let options = LoadOptions::new(Device::Cpu, Some(true));
    let mut narrow = Policy::load(folder.path(), options).unwrap();
    let batch = pack(&groups(RAGGED));
    let expected = policy.score(&batch, 1.0, Entropy::Skipped).unwrap().logprobs;
    let found = narrow.score(&batch, 1.0, Entropy::Skipped).unwrap().logprobs;
    assert_eq!(found.kind(), Kind::Float);
    let difference = (&found - &expected).abs().mean(Kind::Float).double_value(&[]);
    assert!(difference < 0.05, "{difference}");

    narrow.set_training(true);
    let pass = narrow.training_pass(&batch, TrainingOptions::default()).unwrap();
    pass.scores().logprobs.sum(Kind::Float).backward();
    pass.backward();
    for ((name, tensor), gradient) in narrow.trainable().iter().zip(narrow.take_gradients()) {
        assert!(!tensor.grad().defined(), "{name}");
        assert_eq!((gradient.kind(), gradient.size()), (Kind::Float, tensor.size()), "{name}");
        assert_eq!(gradient.isfinite().all().int64_value(&[]), 1, "{name}");
    }
}

#[test]
fn bfloat16_gradients_are_summed_in_float32() {
    let folder = tempfile::tempdir().unwrap();
    naive::policy(&naive::config(Family::Qwen3), 14).save(folder.path()).unwrap();
    let mut policy = Policy::load(folder.path(), LoadOptions::new(Device::Cpu, Some(true))).unwrap();
    policy.set_training(true);
    let batch = pack(&groups(RAGGED));
    for recompute_layers in [false, true] {
        let sum_of = |passes: usize| {
            for _ in 0..passes {
                let options = TrainingOptions { recompute_layers, ..Default::default() };
                let pass = policy.training_pass(&batch, options).unwrap();
                pass.scores().logprobs.sum(Kind::Float).backward();
                pass.backward();
            }
            policy.take_gradients()
        };
        // A bfloat16 sum would stop growing at 256 times its addend.
        let (one, many) = (sum_of(1), sum_of(300));
        for (one, many) in one.iter().zip(&many) {
            let difference = (many / 300.0 - one).abs().max().double_value(&[]);
            assert!(difference <= 1e-4 * one.abs().max().double_value(&[]), "{difference}");
        }
    }
    assert_eq!(policy.take_gradients()[0].count_nonzero(None).int64_value(&[]), 0);
}

#[test]
fn a_batch_without_completion_tokens_is_legal() {
    let mut policy = naive::policy(&naive::config(Family::Qwen3), 9);
    policy.set_training(true);
    for completions in [vec![vec![], vec![]], vec![]] {
        let batch = pack(&vec![(tokens(1, 4), completions)]);
        let scores = policy.score(&batch, 1.0, Entropy::Measured).unwrap();
        assert_eq!(scores.logprobs.size(), [0]);
        for recompute_layers in [false, true] {
            let options = TrainingOptions { recompute_layers, ..Default::default() };
            let pass = policy.training_pass(&batch, options).unwrap();
            pass.scores().logprobs.sum(Kind::Float).backward();
            pass.backward();
        }
    }
}

#[test]
fn the_same_batch_gives_the_same_bits() {
    let mut policy = naive::policy(&naive::config(Family::Qwen3), 10);
    let batch = pack(&groups(RAGGED));
    let mut run = || {
        gradients(&mut policy, |policy| {
            let pass = policy.training_pass(&batch, TrainingOptions::default()).unwrap();
            pass.scores().logprobs.sum(Kind::Float).backward();
            pass.backward();
        })
    };
    assert_eq!(run(), run());
}

#[test]
fn a_reference_is_unaffected_by_training() {
    let mut policy = naive::policy(&naive::config(Family::Qwen3), 11);
    policy.set_training(true);
    let copy = policy.reference();
    let before = copy.plain_logprobs(&tokens(1, 9)).unwrap();
    assert_eq!(before, policy.plain_logprobs(&tokens(1, 9)).unwrap());
    tch::no_grad(|| _ = policy.parameters()[0].1.shallow_clone().fill_(0.5));
    assert_eq!(before, copy.plain_logprobs(&tokens(1, 9)).unwrap());
    assert!(copy.parameters().iter().all(|(_, tensor)| !tensor.requires_grad()));
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let group = |prompt, completions: Vec<_>| GroupTokens { prompt, completions };
    let refused = |groups: &[GroupTokens]| Packed::new(groups).unwrap_err();
    assert_eq!(refused(&[]), packed::Error::NoPrompt);
    assert_eq!(refused(&[group(&[1], vec![]), group(&[], vec![])]), packed::Error::EmptyPrompt { prompt: 1 });
    assert_eq!(
        refused(&[group(&[1], vec![&[2]]), group(&[1], vec![])]),
        packed::Error::GroupSize { prompt: 1, found: 0, expected: 1 }
    );
    let policy = naive::policy(&naive::config(Family::Qwen3), 12);
    let score = |groups: &[GroupTokens]| {
        policy.score(&Packed::new(groups).unwrap(), 1.0, Entropy::Skipped).unwrap_err()
    };
    let unknown = packed::Error::Vocabulary { token: 37, vocab_size: 37 };
    assert_eq!(score(&[group(&[37], vec![&[1]])]), unknown);
    assert_eq!(score(&[group(&[1], vec![&[1, 37]])]), unknown);
    assert_eq!(
        score(&[group(&[1; 200], vec![&[1; 57]])]),
        packed::Error::TooLong { length: 257, max_positions: 256 }
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_lengths_score_as_unshared(
        lengths in (0_usize..4).prop_flat_map(|group_size| proptest::collection::vec(
            (1_usize..12, proptest::collection::vec(0_usize..8, group_size)), 1..4,
        )),
    ) {
        let policy = naive::policy(&Config { num_hidden_layers: 1, ..naive::config(Family::Qwen3) }, 13);
        let lengths: Vec<_> = lengths.iter().map(|(prompt, own)| (*prompt, own.as_slice())).collect();
        let groups = groups(&lengths);
        let scores = policy.score(&pack(&groups), 1.0, Entropy::Skipped).unwrap();
        prop_assert!(largest_difference(&scores.logprobs, &unshared(&policy, &groups, 1.0)) < 1e-5);
    }
}
