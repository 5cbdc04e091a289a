//! A policy for tests: two layers, a vocabulary of words, random weights, written as a Hugging Face folder.

use std::fs;
use std::path::Path;

use podium_model::{Config, LoadOptions, Policy};
use serde_json::json;
use tempfile::TempDir;

const WORDS: [&str; 14] =
    ["<unk>", "<end>", "user", "assistant", ":", "a", "b", "c", "d", "e", "f", "g", "<think>", "</think>"];

/// The id of `<end>`, which ends a completion.
pub(crate) const END: u32 = 1;

/// Creates a folder with random weights of this seed. Architecture and tokenizer are fixed.
pub(crate) fn folder(seed: u64) -> TempDir {
    with_generation_prompt(seed, "assistant :")
}

/// The same with another generation prompt of the chat template.
pub(crate) fn with_generation_prompt(seed: u64, generation_prompt: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    Policy::random(&config(path), seed, LoadOptions::default()).unwrap().save(path).unwrap();
    let vocabulary: serde_json::Map<_, _> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [{
            "id": END, "content": "<end>", "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        }],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    let template = format!(
        "{{% for message in messages %}}{{{{ message.role }}}} : {{{{ message.content }}}} {{% endfor %}}\
        {{% if add_generation_prompt %}}{generation_prompt}{{% endif %}}"
    );
    fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let settings = json!({"eos_token": "<end>", "chat_template": template});
    fs::write(path.join("tokenizer_config.json"), settings.to_string()).unwrap();
    fs::write(path.join("generation_config.json"), json!({"eos_token_id": END}).to_string()).unwrap();
    folder
}

fn config(path: &Path) -> Config {
    let config = json!({
        "model_type": "qwen3",
        "vocab_size": WORDS.len(),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": true,
        "initializer_range": 0.5,
        "eos_token_id": END,
    });
    Config::parse(&config.to_string(), path).unwrap()
}
