//! The policies and batches of the checks.

use std::path::Path;

use podium_grpo::Sampling;
use podium_grpo::rng::Stream;
use podium_model::{Config, Generated, GroupTokens, LoadOptions, Packed, Policy, generate};
use tch::Device;

use super::error::Error;

/// Seed of the weights and of sampling.
const SEED: u64 = 7;
/// Size of the checks' vocabulary.
const VOCABULARY: u32 = 4096;

/// A model's shape: hidden size, feed-forward size, layers, query heads, key heads, size of a head, vocabulary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape(pub(super) &'static str, pub(super) [u32; 7]);

/// The shape of the checks.
pub(super) const SMALL: Shape = Shape("small", [256, 512, 4, 8, 4, 32, VOCABULARY]);

impl Shape {
    pub(super) fn config(self) -> Config {
        let [hidden, feed_forward, layers, heads, key_heads, head, vocabulary] = self.1;
        let text = format!(
            r#"{{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": {vocabulary},
                "hidden_size": {hidden}, "intermediate_size": {feed_forward}, "num_hidden_layers": {layers},
                "num_attention_heads": {heads}, "num_key_value_heads": {key_heads}, "head_dim": {head},
                "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
                "tie_word_embeddings": true, "initializer_range": 0.05, "hidden_act": "silu"}}"#
        );
        Config::parse(&text, Path::new(self.0)).expect("the text is a configuration")
    }
}

/// The policy of the checks: the same weights on every device, rounded to bfloat16 if requested.
pub(super) fn policy(device: Device, bfloat16: bool) -> Result<Policy, Error> {
    let options = LoadOptions::new(device, Some(bfloat16));
    Policy::random(&SMALL.config(), SEED, options).map_err(|error| Error::Policy(error.into()))
}

/// Token ids, a function of `key`.
pub(super) fn tokens(key: u64, count: usize) -> Vec<u32> {
    let mut stream = Stream::new(SEED, "selfcheck", &[key]);
    (0..count).map(|_| stream.below(u64::from(VOCABULARY)) as u32).collect()
}

/// Two prompts of different lengths with four completions each.
pub(super) fn batch() -> Packed {
    let prompts = [tokens(0, 60), tokens(1, 37)];
    let completions: Vec<Vec<Vec<u32>>> = (0..2)
        .map(|prompt| (0..4).map(|sample| tokens(10 + prompt * 4 + sample, 24 - sample as usize)).collect())
        .collect();
    let groups: Vec<GroupTokens<'_>> = prompts
        .iter()
        .zip(&completions)
        .map(|(prompt, completions)| GroupTokens {
            prompt,
            completions: completions.iter().map(Vec::as_slice).collect(),
        })
        .collect();
    Packed::new(&groups).expect("the batch is well-formed")
}

/// Samples completions of exactly `length` tokens for `prompts` prompts of `prompt_length` tokens.
pub(super) fn sample(
    policy: &Policy,
    prompts: usize,
    group_size: usize,
    prompt_length: usize,
    length: usize,
) -> Result<(Vec<Vec<u32>>, Generated), Error> {
    let prompts: Vec<Vec<u32>> =
        (0..prompts as u64).map(|prompt| tokens(100 + prompt, prompt_length)).collect();
    let sampling = Sampling { max_new_tokens: length, stop_token_ids: Vec::new(), ..Sampling::default() };
    let uniform = |prompt: usize, sample: usize, position: usize| {
        Stream::new(SEED, "selfcheck sample", &[prompt as u64, sample as u64]).at(position as u64).uniform()
    };
    let generated = generate(policy, &prompts, group_size, &sampling, &uniform, &|| false);
    Ok((prompts, generated.map_err(|error| Error::Policy(error.into()))?))
}
