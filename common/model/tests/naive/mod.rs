//! A second implementation for comparison: one sequence, all keys of all heads expanded, float64.
#![allow(dead_code, reason = "not every test uses every function")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use podium_model::rope::Rope;
use podium_model::{Config, Family, LoadOptions, Policy, device};
use tch::{Device, Kind, Tensor, no_grad};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// A small policy in which every weight matters: norms and biases differ from 1 and 0.
pub(crate) fn policy(config: &Config, seed: u64) -> Policy {
    // Tests already run in parallel.
    device::set_threads(1).unwrap();
    let policy = Policy::random(config, seed, LoadOptions::default()).unwrap();
    for (stream, (name, tensor)) in policy.parameters().iter().enumerate() {
        if name.contains("norm") || name.ends_with("bias") {
            let wave = (Tensor::arange(tensor.size()[0], DOUBLE) + stream as f64).sin() * 0.3;
            no_grad(|| tensor.shallow_clone().copy_(&(tensor + wave)));
        }
    }
    policy
}

pub(crate) fn config(family: Family) -> Config {
    Config {
        family,
        vocab_size: 37,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 3,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 256,
        rms_norm_eps: 1e-6,
        rope: Rope { theta: 10_000.0, scaling: None },
        tie_word_embeddings: true,
        qkv_bias: family == Family::Qwen2,
        output_bias: false,
        mlp_bias: false,
        initializer_range: 0.25,
        other: serde_json::Map::new(),
    }
}

/// Log-probabilities of all tokens except the first, with the graph to the policy's parameters.
pub(crate) fn logprobs(policy: &Policy, tokens: &[u32], temperature: f64) -> Tensor {
    let distributions = distributions(policy, &tokens[..tokens.len() - 1], temperature);
    let next: Vec<_> = tokens[1..].iter().map(|token| i64::from(*token)).collect();
    distributions.gather(-1, &Tensor::from_slice(&next).unsqueeze(-1), false).squeeze_dim(-1)
}

/// Log-probabilities of every token of the vocabulary after each token of the sequence.
pub(crate) fn distributions(policy: &Policy, tokens: &[u32], temperature: f64) -> Tensor {
    let config = policy.config();
    let find = |name: &str| policy.parameters().iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor);
    let weight = |name: &str| find(name).unwrap_or_else(|| panic!("no {name}")).to_kind(Kind::Double);
    let linear = |name: &str, x: &Tensor| {
        let bias = find(&format!("{name}.bias")).map(|bias| bias.to_kind(Kind::Double));
        x.matmul(&weight(&format!("{name}.weight")).tr()) + bias.unwrap_or_else(|| Tensor::zeros([1], DOUBLE))
    };
    let norm = |name: &str, x: &Tensor| {
        let square = (x * x).mean_dim(-1, true, Kind::Double) + config.rms_norm_eps;
        x / square.sqrt() * weight(&format!("{name}.weight"))
    };
    let (length, d) = (tokens.len() as i64, config.head_dim);
    let rotate = |x: &Tensor| {
        let exponents = Tensor::arange_start_step(0, d, 2, DOUBLE) / d as f64;
        let frequencies = (exponents * -config.rope.theta.ln()).exp();
        let angles = Tensor::arange(length, DOUBLE).unsqueeze(-1) * frequencies;
        let (first, second) = (x.narrow(-1, 0, d / 2), x.narrow(-1, d / 2, d / 2));
        let (cos, sin) = (angles.cos(), angles.sin());
        Tensor::cat(&[&first * &cos - &second * &sin, second * cos + first * sin], -1)
    };

    let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
    let mut x = weight("model.embed_tokens.weight").index_select(0, &Tensor::from_slice(&ids));
    for layer in 0..config.num_hidden_layers {
        let block = format!("model.layers.{layer}");
        let attention = format!("{block}.self_attn");
        let normed = norm(&format!("{block}.input_layernorm"), &x);
        let (query, key, value) = (
            linear(&format!("{attention}.q_proj"), &normed),
            linear(&format!("{attention}.k_proj"), &normed),
            linear(&format!("{attention}.v_proj"), &normed),
        );
        let heads = (0..config.num_attention_heads).map(|head| {
            let key_head = head / config.queries_per_key();
            let mut q = query.narrow(-1, head * d, d);
            let mut k = key.narrow(-1, key_head * d, d);
            if config.has_query_key_norms() {
                q = norm(&format!("{attention}.q_norm"), &q);
                k = norm(&format!("{attention}.k_norm"), &k);
            }
            let scores = rotate(&q).matmul(&rotate(&k).tr()) / (d as f64).sqrt();
            let hidden = Tensor::ones([length, length], DOUBLE).triu(1).to_kind(Kind::Bool);
            let weights = scores.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Double);
            weights.matmul(&value.narrow(-1, key_head * d, d))
        });
        x = &x + linear(&format!("{attention}.o_proj"), &Tensor::cat(&heads.collect::<Vec<_>>(), -1));
        let normed = norm(&format!("{block}.post_attention_layernorm"), &x);
        let gate = linear(&format!("{block}.mlp.gate_proj"), &normed);
        let gated = gate.sigmoid() * &gate * linear(&format!("{block}.mlp.up_proj"), &normed);
        x = &x + linear(&format!("{block}.mlp.down_proj"), &gated);
    }
    let head = if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
    let logits = linear(head, &norm("model.norm", &x)) / temperature;
    logits.log_softmax(-1, Kind::Double)
}
