//! `adapter_config.json`: an accepted file is read back as written, and fits a model or is refused.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use podium_checkpoint::Config;
use podium_checkpoint::adapter::{AdapterConfig, parameters};

const MODEL: &str = r#"{
    "model_type": "qwen3", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 12,
    "num_attention_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-6
}"#;

static CONFIG: LazyLock<Config> =
    LazyLock::new(|| Config::parse(MODEL, Path::new("config.json")).expect("the model above is valid"));

fuzz_target!(|text: &str| {
    let path = Path::new("adapter_config.json");
    let Ok(adapter) = AdapterConfig::parse(text, path) else { return };
    let again = AdapterConfig::parse(&adapter.to_json(), path).expect("a written file is valid");
    assert_eq!(again, adapter);
    assert!(adapter.scale() > 0.0);
    if let Ok(list) = parameters(&CONFIG, &adapter) {
        assert!(!list.is_empty());
        assert!(list.iter().all(|parameter| parameter.shape.contains(&adapter.rank)));
    }
});
