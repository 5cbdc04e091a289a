//! Model folders: a saved policy is read back bit for bit, and non-finite weights are refused by name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use std::fs;
use std::path::Path;

use podium_model::checkpoint::Error;
use podium_model::{Config, Family, LoadOptions, Policy, checkpoint};
use tch::{Device, Kind, Tensor, no_grad};

fn saved(config: &Config, folder: &Path) -> Policy {
    let policy = naive::policy(config, 1);
    policy.save(folder).unwrap();
    policy
}

fn load(folder: &Path) -> Result<Policy, Error> {
    Policy::load(folder, LoadOptions::default())
}

fn assert_same(found: &Policy, expected: &Policy) {
    assert_eq!(found.config(), expected.config());
    assert_eq!(found.parameters(), expected.parameters());
}

#[test]
fn a_folder_is_read_back_bit_for_bit() {
    for config in [
        naive::config(Family::Qwen3),
        naive::config(Family::Qwen2),
        Config {
            tie_word_embeddings: false,
            qkv_bias: true,
            output_bias: true,
            ..naive::config(Family::Llama)
        },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let policy = saved(&config, folder.path());
        assert_same(&load(folder.path()).unwrap(), &policy);
    }
}

#[test]
fn the_same_weights_give_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = naive::config(Family::Qwen3);
    saved(&config, one.path());
    saved(&config, other.path());
    for name in ["config.json", "model.safetensors"] {
        assert_eq!(fs::read(one.path().join(name)).unwrap(), fs::read(other.path().join(name)).unwrap());
    }
    assert_eq!(fs::read_dir(one.path()).unwrap().count(), 2, "nothing temporary is left");
}

#[test]
fn random_weights_are_a_function_of_the_seed() {
    let random = |seed| Policy::random(&naive::config(Family::Qwen3), seed, LoadOptions::default()).unwrap();
    assert_same(&random(3), &random(3));
    assert_ne!(random(3).parameters()[0], random(4).parameters()[0]);
}

#[test]
fn bfloat16_is_preserved() {
    let folder = tempfile::tempdir().unwrap();
    let options = LoadOptions::new(Device::Cpu, Some(true));
    let policy = Policy::random(&naive::config(Family::Qwen3), 1, options).unwrap();
    policy.save(folder.path()).unwrap();
    assert_same(&Policy::load(folder.path(), options).unwrap(), &policy);
    for ((_, wide), (_, narrow)) in load(folder.path()).unwrap().parameters().iter().zip(policy.parameters())
    {
        assert_eq!(wide, &narrow.to_kind(Kind::Float));
    }
}

#[test]
fn a_version_is_assigned_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = naive::config(Family::Qwen3);
    let newer = saved(&config, folder.path());
    let mut policy = Policy::random(&config, 9, LoadOptions::default()).unwrap();
    policy.set_training(true);
    let tokens = [1, 2, 3, 4];
    assert_ne!(policy.plain_logprobs(&tokens).unwrap(), newer.plain_logprobs(&tokens).unwrap());
    policy.assign_from(folder.path()).unwrap();
    assert_same(&policy, &newer);
    assert_eq!(policy.plain_logprobs(&tokens).unwrap(), newer.plain_logprobs(&tokens).unwrap());

    let mut other = Policy::random(&naive::config(Family::Llama), 9, LoadOptions::default()).unwrap();
    assert!(matches!(other.assign_from(folder.path()), Err(Error::Architecture { .. })));
}

#[test]
fn non_finite_weights_are_refused() {
    for value in [f64::NAN, f64::INFINITY] {
        let folder = tempfile::tempdir().unwrap();
        let policy = naive::policy(&naive::config(Family::Qwen3), 1);
        let (name, tensor) = &policy.parameters()[5];
        no_grad(|| tensor.view(-1).narrow(0, 3, 1).copy_(&Tensor::from(value)));
        policy.save(folder.path()).unwrap();
        let error = load(folder.path()).unwrap_err();
        assert!(matches!(error, checkpoint::Error::NotFinite { tensor, .. } if tensor == *name));
    }
}

#[test]
fn a_failed_save_preserves_the_previous_version() {
    let folder = tempfile::tempdir().unwrap();
    let policy = saved(&naive::config(Family::Qwen3), folder.path());
    // A folder blocks the destination of the temporary file.
    let target = folder.path().join("elsewhere");
    fs::create_dir_all(target.join("model.safetensors/occupied")).unwrap();
    assert!(matches!(policy.save(&target), Err(Error::Write(_))));
    assert!(
        !fs::read_dir(&target)
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().ends_with(".tmp") })
    );
    assert_same(&load(folder.path()).unwrap(), &policy);
}
