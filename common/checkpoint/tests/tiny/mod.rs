//! Configuration of a small model.

use std::path::Path;

use podium_checkpoint::Config;
use serde_json::json;

/// Two blocks of a family (`qwen3`, `qwen2`, `llama`), with changed keys.
pub(crate) fn config(family: &str, changes: &[(&str, serde_json::Value)]) -> Config {
    let mut file = json!({
        "model_type": family,
        "vocab_size": 37,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": true,
    });
    for (key, value) in changes {
        file[key] = value.clone();
    }
    Config::parse(&file.to_string(), Path::new("config.json")).unwrap()
}
