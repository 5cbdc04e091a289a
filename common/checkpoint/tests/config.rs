//! `config.json` of released models in both styles, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use podium_checkpoint::config::Error;
use podium_checkpoint::rope::Scaling;
use podium_checkpoint::{Config, Family, FieldError, parameters};
use serde_json::{Value, json};

/// As released with Qwen3-0.6B.
fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 1024,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "max_position_embeddings": 40_960,
        "max_window_layers": 28,
        "model_type": "qwen3",
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_scaling": null,
        "rope_theta": 1_000_000,
        "sliding_window": null,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": 151_936,
    })
}

fn with(mut config: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (key, value) in changes {
        match value {
            Value::Null => _ = config.as_object_mut().unwrap().remove(&key),
            value => config[key] = value,
        }
    }
    config
}

fn parse(config: &Value) -> Result<Config, Error> {
    Config::parse(&config.to_string(), Path::new("config.json"))
}

#[test]
fn both_styles_of_file_say_the_same() {
    let old = parse(&qwen3()).unwrap();
    assert_eq!(old.family, Family::Qwen3);
    assert_eq!((old.head_dim, old.queries_per_key(), old.vocab_size), (128, 2, 151_936));
    assert!(old.tie_word_embeddings && !old.qkv_bias && old.has_query_key_norms());
    assert!((old.rope.theta - 1e6).abs() < 1e-9 && old.rope.scaling.is_none());
    assert_eq!(old.other["eos_token_id"], 151_645);
    let changes = json!({
        "rope_theta": null, "rope_scaling": null, "torch_dtype": null, "dtype": "bfloat16",
        "rope_parameters": { "rope_theta": 1_000_000, "rope_type": "default" },
        "layer_types": ["full_attention", "full_attention"],
    });
    let new = parse(&with(qwen3(), changes)).unwrap();
    assert!(new.same_architecture(&old));
    assert_eq!(new.rope, old.rope);
}

#[test]
fn what_is_written_is_read_back() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let yarn = json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768 });
    for config in [
        qwen3(),
        with(qwen3(), json!({ "attention_bias": true, "rope_scaling": yarn })),
        with(qwen3(), json!({ "model_type": "qwen2", "rope_scaling": { "type": "linear", "factor": 2.0 } })),
        with(
            qwen3(),
            json!({ "model_type": "llama", "head_dim": null, "mlp_bias": true, "rope_scaling": llama3 }),
        ),
    ] {
        let config = parse(&config).unwrap();
        let text = config.to_json("float32");
        let again = Config::parse(&text, Path::new("config.json")).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.to_json("float32"), text);
        let written: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written["torch_dtype"], "float32");
        assert_eq!(written["bos_token_id"], 151_643);
    }
}

#[test]
fn families_have_their_defaults() {
    let qwen2 = parse(&with(qwen3(), json!({ "model_type": "qwen2", "head_dim": null }))).unwrap();
    assert!(qwen2.qkv_bias && !qwen2.output_bias && !qwen2.has_query_key_norms());
    assert_eq!(qwen2.head_dim, 64);
    let llama = json!({ "model_type": "llama", "attention_bias": true, "num_key_value_heads": null });
    let llama = parse(&with(qwen3(), llama)).unwrap();
    assert!(llama.qkv_bias && llama.output_bias && !llama.mlp_bias);
    assert_eq!(llama.num_key_value_heads, 16);
    let yarn = json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768 });
    let scaling = parse(&with(qwen3(), json!({ "rope_scaling": yarn }))).unwrap().rope.scaling.unwrap();
    let Scaling::Yarn { attention_factor, beta_fast, .. } = scaling else { panic!("{scaling:?}") };
    assert!(
        (attention_factor - (0.1 * 4.0_f64.ln() + 1.0)).abs() < 1e-12 && (beta_fast - 32.0).abs() < 1e-12
    );
}

#[test]
fn what_would_be_computed_wrongly_is_refused_by_name() {
    for (changes, name) in [
        (json!({ "model_type": "qwen3_moe" }), "model_type"),
        (json!({ "model_type": null }), "model_type"),
        (
            json!({ "use_sliding_window": true, "sliding_window": 4096, "max_window_layers": 27 }),
            "use_sliding_window",
        ),
        (
            json!({ "use_sliding_window": true, "sliding_window": null, "max_window_layers": 0 }),
            "use_sliding_window",
        ),
        (json!({ "model_type": "qwen2_moe", "num_experts": 60 }), "model_type"),
        (json!({ "model_type": "mixtral", "architectures": ["MixtralForCausalLM"] }), "model_type"),
        (json!({ "model_type": "gemma2" }), "model_type"),
        (json!({ "layer_types": ["full_attention", "sliding_attention"] }), "layer_types"),
        (json!({ "quantization_config": { "quant_method": "gptq" } }), "quantization_config"),
        (json!({ "hidden_act": "gelu" }), "hidden_act"),
        (json!({ "partial_rotary_factor": 0.5 }), "partial_rotary_factor"),
        (json!({ "rope_scaling": { "type": "longrope" } }), "rope_type"),
    ] {
        match parse(&with(qwen3(), changes.clone())) {
            Err(Error::Field { path, source: FieldError::Unsupported { what, .. } }) => {
                assert_eq!((what.as_str(), path.as_path()), (name, Path::new("config.json")));
            }
            other => panic!("{changes}: {other:?}"),
        }
    }
}

#[test]
fn a_sliding_window_that_no_layer_has_is_no_obstacle() {
    for changes in [
        json!({ "sliding_window": 4096 }),
        json!({ "use_sliding_window": true, "sliding_window": 4096, "max_window_layers": 28 }),
    ] {
        let config = parse(&with(qwen3(), changes)).unwrap();
        assert!(!config.to_json("float32").contains("sliding_window\": 4096"));
    }
}

#[test]
fn the_largest_model_that_is_accepted_has_sizes_that_do_not_overflow() {
    let largest = json!({
        "vocab_size": 1 << 22, "hidden_size": 1 << 22, "intermediate_size": 1 << 22, "num_hidden_layers": 1 << 10,
        "num_attention_heads": 1 << 12, "num_key_value_heads": 1 << 12, "head_dim": 1 << 10,
        "tie_word_embeddings": false,
    });
    let config = parse(&with(qwen3(), largest)).unwrap();
    let sizes = parameters::list(&config).into_iter().map(|parameter| {
        let numbers = parameter.shape.iter().try_fold(4_i64, |size, dimension| size.checked_mul(*dimension));
        numbers.unwrap_or_else(|| panic!("{}", parameter.name))
    });
    assert!(sizes.into_iter().try_fold(0_i64, i64::checked_add).is_some());
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for (changes, name) in [
        (json!({ "hidden_size": 0 }), "hidden_size"),
        (json!({ "vocab_size": 1_u64 << 60 }), "vocab_size"),
        (json!({ "num_hidden_layers": -3 }), "num_hidden_layers"),
        (json!({ "num_hidden_layers": 1_000_000_000_000_u64 }), "num_hidden_layers"),
        (json!({ "num_attention_heads": 1 << 20, "head_dim": 1 << 20 }), "num_attention_heads"),
        (json!({ "num_key_value_heads": 5 }), "num_key_value_heads"),
        (json!({ "head_dim": 7 }), "head_dim"),
        (json!({ "rms_norm_eps": 0.0 }), "rms_norm_eps"),
        (json!({ "rope_theta": -1.0 }), "rope_theta"),
        (json!({ "rope_scaling": { "type": "linear" } }), "factor"),
        (json!({ "rope_scaling": { "type": "linear", "factor": 0.0 } }), "factor"),
    ] {
        match parse(&with(qwen3(), changes.clone())) {
            Err(Error::Field { source: FieldError::Invalid { what, .. }, .. }) => assert_eq!(what, name),
            other => panic!("{changes}: {other:?}"),
        }
    }
    assert!(matches!(parse(&with(qwen3(), json!({ "hidden_size": null }))), Err(Error::Json { .. })));
    assert!(matches!(Config::parse("{", Path::new("config.json")), Err(Error::Json { .. })));
    assert!(matches!(Config::load(Path::new("/no/such/folder")), Err(Error::Read { .. })));
}
