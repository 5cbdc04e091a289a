//! `config.json` of released models in both styles, and refused settings.
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
fn both_styles_of_file_are_equivalent() {
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
fn written_configurations_are_read_back() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let yarn = json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768 });
    for config in [
        qwen3(),
        with(qwen3(), json!({ "attention_bias": true, "rope_scaling": yarn.clone() })),
        with(qwen3(), json!({ "rope_scaling": with(yarn.clone(), json!({ "truncate": false })) })),
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
fn unsupported_settings_are_refused_by_name() {
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
        (
            json!({ "rope_parameters": { "rope_type": "default", "partial_rotary_factor": 0.5 } }),
            "partial_rotary_factor",
        ),
        (json!({ "per_layer_config": { "3": { "num_attention_heads": 8 } } }), "per_layer_config"),
        (json!({ "transformers_weights": "other.safetensors" }), "transformers_weights"),
        (json!({ "is_causal": false }), "is_causal"),
        (json!({ "attention_dropout": 0.1 }), "attention_dropout"),
        (json!({ "logit_scale": 0.0625 }), "logit_scale"),
        (json!({ "logits_scaling": 8 }), "logits_scaling"),
        (json!({ "embedding_multiplier": 12.0 }), "embedding_multiplier"),
        (json!({ "final_logit_softcapping": 30.0 }), "final_logit_softcapping"),
        (json!({ "no_rope_layers": [1, 1, 1, 0] }), "no_rope_layers"),
        (json!({ "model_type": "llama", "use_qk_norm": true }), "use_qk_norm"),
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
fn an_unused_sliding_window_is_accepted() {
    for changes in [
        json!({ "sliding_window": 4096 }),
        json!({ "use_sliding_window": true, "sliding_window": 4096, "max_window_layers": 28 }),
    ] {
        let config = parse(&with(qwen3(), changes)).unwrap();
        assert!(!config.to_json("float32").contains("sliding_window\": 4096"));
    }
}

#[test]
fn sizes_of_the_largest_accepted_model_do_not_overflow() {
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
fn invalid_values_are_refused_by_name() {
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
        (json!({ "hidden_size": null }), "hidden_size"),
        (json!({ "hidden_size": "1024" }), "hidden_size"),
        (json!({ "head_dim": 128.5 }), "head_dim"),
        (json!({ "tie_word_embeddings": "yes" }), "tie_word_embeddings"),
        (json!({ "rope_theta": "1000000" }), "rope_theta"),
        (json!({ "rope_scaling": "yarn" }), "rope_scaling"),
        (json!({ "rope_scaling": { "type": "yarn", "factor": "4" } }), "factor"),
        (json!({ "rope_scaling": { "type": "yarn", "beta_fast": "32" } }), "beta_fast"),
        (json!({ "rope_scaling": { "type": "yarn", "truncate": 0 } }), "truncate"),
        (
            json!({ "rope_scaling": { "type": "yarn", "original_max_position_embeddings": 8192.5 } }),
            "original_max_position_embeddings",
        ),
        (json!({ "rope_parameters": { "rope_theta": "1e6" } }), "rope_theta"),
        (
            json!({ "rope_scaling": { "type": "linear", "factor": 2, "beta_fast": 32 } }),
            "rope_scaling.beta_fast",
        ),
        (json!({ "rope_parameters": { "mrope_section": [16, 24, 24] } }), "rope_parameters.mrope_section"),
        (json!({ "rope_parameters": { "factor": 4.0 } }), "rope_parameters.factor"),
    ] {
        match parse(&with(qwen3(), changes.clone())) {
            Err(Error::Field { source: FieldError::Invalid { what, .. }, .. }) => assert_eq!(what, name),
            other => panic!("{changes}: {other:?}"),
        }
    }
    let message = |changes| parse(&with(qwen3(), changes)).unwrap_err();
    let source = |error: Error| std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source(message(json!({ "head_dim": 128.5 }))), "head_dim is 128.5, expected a whole number");
    assert_eq!(
        source(message(json!({ "hidden_size": null }))),
        "hidden_size is missing, expected a whole number"
    );
    assert!(matches!(Config::parse("[]", Path::new("config.json")), Err(Error::Json { .. })));
    assert!(matches!(Config::parse("{", Path::new("config.json")), Err(Error::Json { .. })));
    assert!(matches!(Config::load(Path::new("/no/such/folder")), Err(Error::Read { .. })));
}

/// The scaling of a configuration with these changes.
fn scaling(changes: Value) -> Scaling {
    parse(&with(qwen3(), changes)).unwrap().rope.scaling.unwrap()
}

fn yarn(more: Value) -> Value {
    with(json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192 }), more)
}

#[test]
fn both_styles_in_one_file_must_agree() {
    let parameters = json!({ "rope_type": "default", "rope_theta": 1e6 });
    // A typical user edit of a file of Transformers 5, which would then lose rope_theta.
    let added = json!({ "rope_theta": null, "rope_parameters": parameters, "rope_scaling": yarn(json!({})) });
    match parse(&with(qwen3(), added)) {
        Err(Error::Field { source: FieldError::Invalid { what, expected, .. }, .. }) => {
            assert_eq!(what, "rope_scaling");
            assert!(expected.contains("rope_parameters") && expected.contains("remove one"), "{expected}");
        }
        other => panic!("{other:?}"),
    }
    let other_theta = json!({
        "rope_theta": null, "rope_scaling": yarn(json!({})), "rope_parameters": yarn(json!({ "rope_theta": 1e6 })),
    });
    assert!(parse(&with(qwen3(), other_theta)).is_err());
    let same =
        json!({ "rope_scaling": yarn(json!({})), "rope_parameters": yarn(json!({ "rope_theta": 1e6 })) });
    let same = parse(&with(qwen3(), same)).unwrap();
    assert_eq!(same.rope, parse(&with(qwen3(), json!({ "rope_scaling": yarn(json!({})) }))).unwrap().rope);
    let empty = json!({ "rope_theta": null, "rope_scaling": {}, "rope_parameters": parameters });
    assert_eq!(parse(&with(qwen3(), empty)).unwrap().rope, parse(&qwen3()).unwrap().rope);
}

#[test]
fn every_key_of_a_scaling_is_read() {
    let Scaling::Yarn { truncate, .. } =
        scaling(json!({ "rope_scaling": yarn(json!({ "truncate": false })) }))
    else {
        panic!("yarn");
    };
    assert!(!truncate);
    let original = |changes| match scaling(changes) {
        Scaling::Yarn { original_positions, .. } => original_positions,
        other => panic!("{other:?}"),
    };
    assert_eq!(original(json!({ "rope_scaling": yarn(json!({})) })), 8192);
    let float = json!({ "original_max_position_embeddings": 8192.0 });
    assert_eq!(original(json!({ "rope_scaling": yarn(float) })), 8192);
    // The top-level value takes precedence, as in Transformers.
    let top = json!({ "rope_scaling": yarn(json!({})), "original_max_position_embeddings": 4096 });
    assert_eq!(original(top), 4096);
    let top_alone = json!({
        "rope_scaling": { "rope_type": "yarn", "factor": 4 }, "original_max_position_embeddings": 4096.0,
    });
    assert_eq!(original(top_alone), 4096);
    assert_eq!(original(json!({ "rope_scaling": { "rope_type": "yarn", "factor": 4 } })), 40_960);
    let harmless =
        yarn(json!({ "attn_factor": 1, "finetuned": true, "long_factor": [], "partial_rotary_factor": 1 }));
    assert_eq!(
        scaling(json!({ "rope_scaling": harmless })),
        scaling(json!({ "rope_scaling": yarn(json!({})) }))
    );
}

#[test]
fn whole_floats_are_whole_numbers() {
    let floats = json!({ "head_dim": 128.0, "num_hidden_layers": 28.0, "max_position_embeddings": 40_960.0 });
    assert_eq!(parse(&with(qwen3(), floats)).unwrap(), parse(&qwen3()).unwrap());
}

#[test]
fn neutral_keys_are_written_back() {
    let neutral = json!({
        "attention_dropout": 0.0, "logit_scale": 1.0, "no_rope_layers": [1, 1], "per_layer_config": {},
        "use_qk_norm": true, "hidden_act": "swish", "pretraining_tp": 2, "quantization_config": {},
    });
    let config = parse(&with(qwen3(), neutral)).unwrap();
    assert!(config.same_architecture(&parse(&qwen3()).unwrap()));
    assert_eq!((&config.other["logit_scale"], &config.other["pretraining_tp"]), (&json!(1.0), &json!(2)));
    assert!(!config.other.contains_key("quantization_config"));
    let keys: Vec<_> = parse(&qwen3()).unwrap().other.keys().cloned().collect();
    assert_eq!(
        keys,
        ["attention_dropout", "bos_token_id", "eos_token_id", "transformers_version", "use_cache"]
    );
}

#[test]
fn a_git_lfs_pointer_is_refused_by_name() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1342\n";
    let error = Config::parse(pointer, Path::new("models/x/config.json")).unwrap_err().to_string();
    assert!(
        error.starts_with("models/x/config.json is a Git LFS pointer") && error.contains("git lfs pull"),
        "{error}"
    );
}
