//! Implementations of the same computation agree: attention with and without scores in memory, merged adapters, fused
//! sampling.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use podium_checkpoint::adapter::{AdapterConfig, Targets};
use podium_grpo::Sampling;
use podium_model::{
    Config, Entropy, Family, GroupTokens, LoadOptions, Packed, Policy, Sampled, TrainingOptions, generate,
};
use tch::{Device, Kind, Tensor};

fn tokens(seed: u32, length: u32) -> Vec<u32> {
    (0..length).map(|index| ((index + 1) * (seed * 2 + 7) * 131) % 37).collect()
}

/// A batch of groups: tokens of the prompt, and of each completion.
fn pack(groups: &[(u32, [u32; 3])]) -> Packed {
    let completions = |lengths: &[u32; 3]| lengths.map(|length| tokens(length + 5, length));
    let texts: Vec<_> =
        groups.iter().map(|(prompt, lengths)| (tokens(*prompt, *prompt), completions(lengths))).collect();
    let groups: Vec<_> = texts
        .iter()
        .map(|(prompt, completions)| GroupTokens {
            prompt,
            completions: completions.iter().map(Vec::as_slice).collect(),
        })
        .collect();
    Packed::new(&groups).unwrap()
}

#[test]
fn attention_with_and_without_scores_in_memory_agree() {
    for config in [Family::Qwen3, Family::Qwen2, Family::Llama].map(naive::config) {
        let flash = naive::policy(&config, 5);
        let folder = tempfile::tempdir().unwrap();
        flash.save(folder.path()).unwrap();
        let options = LoadOptions::default().with_materialized_attention(true);
        let materialized = Policy::load(folder.path(), options).unwrap();
        let batch = pack(&[(9, [4, 1, 7]), (3, [0, 2, 5])]);
        let [own, other] = [flash, materialized].map(|mut policy| {
            policy.set_training(true);
            let pass = policy.training_pass(&batch, TrainingOptions::default()).unwrap();
            pass.scores().logprobs.square().sum(Kind::Float).backward();
            let scores = pass.scores().logprobs.detach();
            pass.backward();
            (scores, policy.take_gradients())
        });
        let close = |one: &Tensor, other: &Tensor| {
            let difference = (one - other).abs().max() / other.abs().max().clamp_min(1e-3);
            assert!(difference.double_value(&[]) < 1e-5, "{difference:?}");
        };
        close(&own.0, &other.0);
        own.1.iter().zip(&other.1).for_each(|(own, other)| close(own, other));
    }
}

#[test]
fn a_merged_adapter_computes_the_same() {
    let config = naive::config(Family::Qwen3);
    let adapter = AdapterConfig {
        rank: 3,
        alpha: 6.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::all_linear(),
        base_model: None,
    };
    let policy = naive::policy(&config, 5);
    assert!(policy.merged().is_none());
    let policy = policy.with_new_adapter(adapter, 3).unwrap();
    for (index, (_, tensor)) in policy.trainable().iter().enumerate() {
        let wave = (Tensor::arange(tensor.numel() as i64, (Kind::Float, Device::Cpu)) + index as f64).sin();
        tch::no_grad(|| tensor.shallow_clone().copy_(&(wave.view(&tensor.size()[..]) * 0.1)));
    }
    let merged = policy.merged().unwrap();
    assert!(merged.adapter().is_none());
    let batch = pack(&[(9, [4, 1, 7])]);
    let score = |policy: &Policy| policy.score(&batch, 1.0, Entropy::Skipped).unwrap().logprobs;
    let (own, expected) = (score(&merged), score(&policy));
    assert!((&own - &expected).abs().max().double_value(&[]) < 1e-5);
    // Unchanged weights are shared, and the base is unchanged.
    assert_eq!(merged.parameters()[0].1.data_ptr(), policy.parameters()[0].1.data_ptr());
    let base = policy.parameters().iter().zip(merged.parameters()).filter(|(own, new)| own.1 != new.1);
    assert_eq!(base.count() as i64, 7 * config.num_hidden_layers);
}

#[test]
fn fused_sampling_agrees_with_the_operations_of_a_gpu() {
    let settings = [
        Sampling::default(),
        Sampling { top_p: 0.7, temperature: 0.8, ..Sampling::default() },
        Sampling { top_k: 5, ..Sampling::default() },
        Sampling { top_k: 9, top_p: 0.5, ..Sampling::default() },
        Sampling { greedy: true, ..Sampling::default() },
    ];
    let uniform = |prompt: usize, sample: usize, position: usize| {
        ((prompt * 31 + sample * 17 + position * 7) % 101) as f64 / 101.0
    };
    // Prompts of different lengths, completions that end at different times, and buffers that are doubled.
    let prompts = [tokens(4, 40), tokens(5, 17), tokens(6, 3)];
    for family in [Family::Qwen3, Family::Qwen2, Family::Llama] {
        let config = Config { head_dim: 16, ..naive::config(family) };
        let fused = naive::policy(&config, 5);
        let folder = tempfile::tempdir().unwrap();
        fused.save(folder.path()).unwrap();
        let by_operations = Policy::load(folder.path(), LoadOptions::default().as_on_a_gpu()).unwrap();
        for sampling in &settings {
            let sampling = Sampling { max_new_tokens: 80, stop_token_ids: vec![1, 2, 3], ..sampling.clone() };
            let [own, other] = [&fused, &by_operations].map(|policy| {
                let sampled = generate(policy, &prompts, 5, &sampling, &uniform, &|| false).unwrap();
                sampled.groups.into_iter().flatten().collect::<Vec<_>>()
            });
            for (own, other) in own.iter().zip(&other) {
                assert_eq!((&own.token_ids, own.finish_reason), (&other.token_ids, other.finish_reason));
                let close = |own: &[f32], other: &[f32]| {
                    own.len() == other.len()
                        && own.iter().zip(other).all(|(own, other)| (own - other).abs() < 2e-4)
                };
                assert!(close(&own.logprobs, &other.logprobs), "{own:?}, {other:?}");
                let sampled = |of: &Sampled| of.sampled_logprobs.clone().unwrap_or_default();
                assert!(close(&sampled(own), &sampled(other)), "{own:?}, {other:?}");
            }
        }
    }
}
