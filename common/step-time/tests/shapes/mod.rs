//! Policies of the tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "not every test uses every shape")]

use std::path::Path;

use podium_checkpoint::Config;
use podium_checkpoint::adapter::{AdapterConfig, Targets};
use podium_memory::Number;
use podium_step_time::Policy;

/// Name, width, feed-forward width, layers, query heads of Qwen3's shapes.
pub(crate) const QWEN3: [(&str, i64, i64, i64, i64); 3] = [
    ("Qwen3-0.6B", 1024, 3072, 28, 16),
    ("Qwen3-1.7B", 2048, 6144, 28, 16),
    ("Qwen3-4B", 2560, 9728, 36, 32),
];

/// A policy with an adapter of rank 16 on all linear layers, or with all weights in training.
pub(crate) fn qwen3(index: usize, adapted: bool) -> Policy {
    let (_, hidden, feed_forward, layers, heads) = QWEN3[index];
    policy([151_936, hidden, feed_forward, layers, heads, 8, 128], Number::Bfloat16, adapted)
}

/// The policy of docs/design/benchmarks.md for CPUs.
pub(crate) fn small(adapted: bool) -> Policy {
    policy([8192, 512, 1536, 8, 8, 4, 64], Number::Float32, adapted)
}

fn policy(sizes: [i64; 7], number: Number, adapted: bool) -> Policy {
    let [vocabulary, hidden, feed_forward, layers, heads, key_heads, head] = sizes;
    let text = format!(
        r#"{{"model_type": "qwen3", "vocab_size": {vocabulary}, "hidden_size": {hidden},
            "intermediate_size": {feed_forward}, "num_hidden_layers": {layers}, "num_attention_heads": {heads},
            "num_key_value_heads": {key_heads}, "head_dim": {head}, "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6, "tie_word_embeddings": true}}"#
    );
    let config = Config::parse(&text, Path::new("config.json")).unwrap();
    let adapter = AdapterConfig {
        rank: 16,
        alpha: 32.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::all_linear(),
        base_model: None,
    };
    Policy::new(&config, number, adapted.then_some(&adapter)).unwrap()
}
