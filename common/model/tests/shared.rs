//! Policies of several threads with one copy of the model's weights.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use podium_checkpoint::adapter::{AdapterConfig, Targets};
use podium_model::{Config, LoadOptions, Policy, SharedDevice};

/// A folder with a model of random weights.
fn model(seed: u64) -> tempfile::TempDir {
    let text = r#"{"model_type": "qwen3", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "initializer_range": 0.02}"#;
    let config = Config::parse(text, Path::new("config.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    Policy::random(&config, seed, LoadOptions::default()).unwrap().save(folder.path()).unwrap();
    folder
}

fn load(folder: &Path, device: &SharedDevice) -> Policy {
    Policy::load_shared(folder, LoadOptions::default(), device).unwrap()
}

/// Returns the addresses of the model's weights.
fn memory(policy: &Policy) -> Vec<usize> {
    policy.parameters().iter().map(|(_, tensor)| tensor.data_ptr() as usize).collect()
}

#[test]
fn policies_of_two_threads_share_their_weights() {
    let (folder, device) = (model(1), SharedDevice::default());
    let own = load(folder.path(), &device);
    let (clone, expected) = (device.clone(), memory(&own));
    let other = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut other = load(folder.path(), &clone);
            // The version that is loaded already.
            other.assign_from(folder.path()).unwrap();
            memory(&other)
        });
        load.join().unwrap()
    });
    assert_eq!(other, expected);
    let separate = Policy::load(folder.path(), LoadOptions::default()).unwrap();
    assert_ne!(memory(&separate), expected);
}

#[test]
fn an_adapter_in_training_belongs_to_one_policy() {
    let (folder, device) = (model(1), SharedDevice::default());
    let config = AdapterConfig {
        rank: 2,
        alpha: 4.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::all_linear(),
        base_model: None,
    };
    let mut trained = load(folder.path(), &device).with_new_adapter(config, 3).unwrap();
    trained.set_training(true);
    let sampled = load(folder.path(), &device);
    assert_eq!(memory(&trained), memory(&sampled));
    assert!(trained.trainable().iter().all(|(_, tensor)| tensor.requires_grad()));
    assert!(sampled.parameters().iter().all(|(_, tensor)| !tensor.requires_grad()));
    assert_eq!(memory(&trained.copy_of_trained()), memory(&sampled));
}

#[test]
fn shared_weights_are_never_replaced() {
    let (one, two, device) = (model(1), model(2), SharedDevice::default());
    let mut policy = load(one.path(), &device);
    let before = policy.parameters()[0].1.copy();
    let errors = [
        policy.assign_from(two.path()).unwrap_err(),
        Policy::load_shared(two.path(), LoadOptions::default(), &device).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("differs from the base model in memory"), "{error}");
    }
    assert_eq!(policy.parameters()[0].1, before);
}
