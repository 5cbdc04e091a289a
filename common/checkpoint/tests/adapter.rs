//! Adapters in PEFT's files: reading, writing, and refused variants.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tiny;

use std::fs;
use std::path::Path;

use podium_checkpoint::adapter::{self, AdapterConfig, Module, Targets};
use podium_checkpoint::{Dtype, Error, FieldError, TensorInfo, config};
use serde_json::{Value, json};

/// As written by PEFT 0.21.
fn peft() -> Value {
    json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": {},
        "arrow_config": null,
        "auto_mapping": { "base_model_class": "Qwen3ForCausalLM", "parent_library": "transformers.models.qwen3" },
        "base_model_name_or_path": "Qwen/Qwen3-4B",
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
        "loftq_config": {},
        "lora_alpha": 32,
        "lora_bias": false,
        "lora_dropout": 0.05,
        "lora_ga_config": null,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": null,
        "monteclora_config": null,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": 16,
        "rank_pattern": {},
        "revision": null,
        "target_modules": ["v_proj", "q_proj"],
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_bdlora": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": false,
        "velora_config": null,
    })
}

fn with(key: &str, value: Value) -> Result<AdapterConfig, config::Error> {
    let mut file = peft();
    file[key] = value;
    AdapterConfig::parse(&file.to_string(), Path::new("adapter_config.json"))
}

fn adapter(targets: Targets) -> AdapterConfig {
    AdapterConfig { rank: 3, alpha: 6.0, dropout: 0.0, rslora: false, targets, base_model: None }
}

fn names(targets: Targets) -> Result<Vec<String>, FieldError> {
    let modules = adapter(targets).modules(&tiny::config("qwen3", &[]))?;
    Ok(modules.into_iter().map(|module| module.name).collect())
}

#[test]
fn a_file_of_peft_is_read() {
    let read = with("use_rslora", false.into()).unwrap();
    let expected = AdapterConfig {
        rank: 16,
        alpha: 32.0,
        dropout: 0.05,
        rslora: false,
        targets: Targets::names(["q_proj", "v_proj"]),
        base_model: Some("Qwen/Qwen3-4B".to_owned()),
    };
    assert_eq!(read, expected);
    assert!((read.scale() - 2.0).abs() < 1e-12);
    assert!((with("use_rslora", true.into()).unwrap().scale() - 8.0).abs() < 1e-12);
}

#[test]
fn written_configurations_are_read_back() {
    for targets in [Targets::all_linear(), Targets::Pattern(r".*\.layers\.1\..*_proj".to_owned())] {
        for alpha in [6.0, 0.3] {
            let written = AdapterConfig {
                alpha,
                rslora: true,
                dropout: 0.1,
                base_model: Some("/models/base".to_owned()),
                ..adapter(targets.clone())
            };
            let text = written.to_json();
            assert_eq!(AdapterConfig::parse(&text, Path::new("adapter_config.json")).unwrap(), written);
            assert_eq!(written.to_json(), text);
        }
    }
    let text: Value = serde_json::from_str(&adapter(Targets::all_linear()).to_json()).unwrap();
    assert_eq!(text["lora_alpha"].to_string(), "6", "an integer, as PEFT declares it");
}

#[test]
fn settings_that_change_nothing_are_accepted() {
    for (key, value) in [
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!("eva")),
        ("init_lora_weights", json!("orthogonal")),
        ("init_lora_weights", json!(false)),
        ("eva_config", json!({ "rho": 1.0 })),
        ("task_type", Value::Null),
        ("modules_to_save", json!([])),
        ("peft_version", json!("0.30.0")),
        ("of_a_later_version", Value::Null),
        ("of_a_later_version", json!(false)),
        ("of_a_later_version", json!({})),
    ] {
        assert!(with(key, value.clone()).is_ok(), "{key}: {value}");
    }
}

#[test]
fn variants_are_refused_by_name() {
    for (key, value) in [
        ("peft_type", json!("ADALORA")),
        ("peft_type", Value::Null),
        ("task_type", json!("SEQ_CLS")),
        ("bias", json!("lora_only")),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_16")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("mica")),
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({ "q_proj": 4 })),
        ("alpha_pattern", json!({ "q_proj": 4 })),
        ("layers_to_transform", json!([0])),
        ("layers_to_transform", json!(0)),
        ("layer_replication", json!([[0, 1]])),
        ("exclude_modules", json!(["q_proj"])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["w"])),
        ("use_qalora", json!(true)),
        ("of_a_later_version", json!(true)),
    ] {
        match with(key, value.clone()) {
            Err(config::Error::Field { path, source: FieldError::Unsupported { what, found, .. } }) => {
                assert_eq!((what.as_str(), path.as_path()), (key, Path::new("adapter_config.json")));
                assert_eq!(found.trim_matches('"'), value.to_string().trim_matches('"'));
            }
            other => panic!("{key}: {value}: {other:?}"),
        }
    }
}

#[test]
fn invalid_numbers_are_refused_by_name() {
    for (key, value) in [
        ("r", json!(0)),
        ("r", json!(-1)),
        ("r", json!(1_u64 << 40)),
        ("lora_alpha", json!(0)),
        ("lora_alpha", json!(5e-324)),
        ("lora_dropout", json!(1.0)),
        ("lora_dropout", json!(-0.1)),
        ("target_modules", json!([])),
    ] {
        match with(key, value.clone()) {
            Err(config::Error::Field { source: FieldError::Invalid { what, .. }, .. }) => {
                assert_eq!(what, key);
            }
            other => panic!("{key}: {value}: {other:?}"),
        }
    }
    for (key, value, expected) in [
        ("r", json!("8"), "r is \"8\", expected a whole number"),
        ("lora_alpha", Value::Null, "lora_alpha is missing, expected a number"),
        ("target_modules", json!(7), "target_modules is 7, expected a list of names"),
        (
            "target_modules",
            json!(["q_proj", 7]),
            "target_modules is [\"q_proj\",7], expected a list of names",
        ),
        ("use_rslora", json!("yes"), "use_rslora is \"yes\", expected true or false"),
    ] {
        let Err(config::Error::Field { source, .. }) = with(key, value) else { panic!("{key}") };
        assert!(source.to_string().starts_with(expected), "{source}");
    }
    assert!(matches!(AdapterConfig::load(Path::new("/no/such")), Err(config::Error::Read { .. })));
}

#[test]
fn targets_name_modules_as_in_peft() {
    let all = names(Targets::all_linear()).unwrap();
    assert_eq!(all.len(), 14);
    assert_eq!(all[0], "model.layers.0.self_attn.q_proj");
    assert_eq!(all[13], "model.layers.1.mlp.down_proj");
    assert_eq!(Targets::names(["all-linear"]), Targets::all_linear());
    assert_eq!(with("target_modules", json!("all-linear")).unwrap().targets, Targets::all_linear());

    let last_parts = names(Targets::names(["down_proj", "0.self_attn.k_proj"])).unwrap();
    assert_eq!(
        last_parts,
        ["model.layers.0.self_attn.k_proj", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    );
    let whole = "model.layers.1.mlp.up_proj";
    assert_eq!(names(Targets::names([whole])).unwrap(), [whole]);
    assert_eq!(names(Targets::names([whole, "up_proj"])).unwrap().len(), 2, "a module may be named twice");
    assert!(names(Targets::names(["proj"])).is_err(), "parts between dots count, not endings");

    // As written by Unsloth.
    let pattern = r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|down_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.mlp\.(?:(?:up_proj)))";
    assert_eq!(names(Targets::Pattern(pattern.to_owned())).unwrap().len(), 6);
    assert!(names(Targets::Pattern("q_proj".to_owned())).is_err(), "a pattern is for whole names");
}

#[test]
fn targets_that_cannot_be_adapted_are_refused_by_name() {
    for (targets, culprit) in [
        (Targets::names(["q_proj", "lm_head"]), "lm_head"),
        (Targets::names(["embed_tokens"]), "model.embed_tokens"),
        (Targets::Pattern(".*".to_owned()), "model.embed_tokens"),
        (Targets::Pattern(r"(?=.*)q_proj".to_owned()), r"(?=.*)q_proj"),
        (Targets::Pattern(r"(a{1000}){1000}".to_owned()), r"(a{1000}){1000}"),
        (Targets::Pattern(r"a)|(?:.*".to_owned()), r"a)|(?:.*"),
    ] {
        match names(targets) {
            Err(FieldError::Unsupported { what, found, .. }) => {
                assert_eq!((what.as_str(), found.as_str()), ("target_modules", culprit));
            }
            other => panic!("{culprit}: {other:?}"),
        }
    }
    for (targets, culprit) in [
        (Targets::names(["q_proj", "c_attn"]), "c_attn"),
        (Targets::names(["self_attn"]), "self_attn"),
        (Targets::names(["input_layernorm"]), "input_layernorm"),
        (Targets::names(["2.mlp.up_proj"]), "2.mlp.up_proj"),
        (Targets::Pattern("c_.*".to_owned()), "c_.*"),
    ] {
        match names(targets) {
            Err(FieldError::Invalid { what, found, .. }) => {
                assert_eq!((what.as_str(), found.as_str()), ("target_modules", culprit));
            }
            other => panic!("{culprit}: {other:?}"),
        }
    }
}

#[test]
fn parameters_have_the_names_and_shapes_of_peft() {
    let config = tiny::config("qwen2", &[]);
    let adapter = adapter(Targets::names(["k_proj", "down_proj"]));
    let modules = adapter.modules(&config).unwrap();
    let k_proj = Module { name: "model.layers.0.self_attn.k_proj".to_owned(), inputs: 24, outputs: 20 };
    assert_eq!(modules[0], k_proj);
    let list = adapter::parameters(&config, &adapter).unwrap();
    let list: Vec<_> =
        list.iter().map(|parameter| (parameter.name.as_str(), parameter.shape.as_slice())).collect();
    assert_eq!(
        list[..4],
        [
            ("base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight", &[3, 24][..]),
            ("base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight", &[20, 3][..]),
            ("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", &[3, 40][..]),
            ("base_model.model.model.layers.0.mlp.down_proj.lora_B.weight", &[24, 3][..]),
        ]
    );
    assert_eq!(list.len(), 8);
}

#[test]
fn weights_are_checked_against_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny::config("llama", &[]);
    let written = adapter(Targets::names(["o_proj"]));
    let infos: Vec<_> = adapter::parameters(&config, &written)
        .unwrap()
        .into_iter()
        .map(|parameter| TensorInfo { name: parameter.name, dtype: Dtype::BF16, shape: parameter.shape })
        .collect();
    let zeros = |info: &TensorInfo| Ok::<_, Error>(vec![0; info.size() as usize]);
    adapter::write(folder.path(), &written, &infos, zeros).unwrap();

    let read = AdapterConfig::load(folder.path()).unwrap();
    assert_eq!(read, written);
    let checkpoint = adapter::open(folder.path(), &config, &read).unwrap();
    for info in &infos {
        let tensor = checkpoint.tensor(&info.name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::BF16, info.shape.as_slice()));
        assert_eq!(tensor.bytes(), vec![0; info.size() as usize]);
    }

    let open = |targets: &[&str], rank| {
        let adapter = AdapterConfig { rank, ..adapter(Targets::names(targets.iter().copied())) };
        adapter::open(folder.path(), &config, &adapter).unwrap_err()
    };
    assert!(matches!(open(&["o_proj"], 4), Error::Shape { expected, .. } if expected.contains(&4)));
    assert!(
        matches!(open(&["o_proj", "q_proj"], 3), Error::Missing { tensor, .. } if tensor.contains("q_proj"))
    );
    assert!(
        matches!(open(&["0.self_attn.o_proj"], 3), Error::Unexpected { tensor, .. } if tensor.contains("layers.1"))
    );
    assert!(
        matches!(open(&["fc1"], 3), Error::Config(config::Error::Field { path, .. }) if path.ends_with(adapter::CONFIG))
    );

    fs::rename(folder.path().join(adapter::WEIGHTS), folder.path().join("adapter_model.bin")).unwrap();
    assert!(matches!(open(&["o_proj"], 3), Error::Pickle { path } if path.ends_with("adapter_model.bin")));
    fs::remove_file(folder.path().join("adapter_model.bin")).unwrap();
    assert!(matches!(open(&["o_proj"], 3), Error::File { action: "open", .. }));
}
