//! Adapters: they change the adapted layers, train alone, are saved and loaded as PEFT folders, and merge into the
//! model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use std::fs;

use podium_checkpoint::adapter::{AdapterConfig, Targets};
use podium_files::durable::Durability;
use podium_grpo::Sampling;
use podium_model::{
    AdapterDropout, Config, Entropy, Family, GroupTokens, LoadOptions, Packed, Policy, TrainingOptions,
    generate, merge,
};
use tch::{Kind, Tensor, no_grad};

fn adapter_config(targets: &[&str]) -> AdapterConfig {
    AdapterConfig {
        rank: 3,
        alpha: 6.0,
        dropout: 0.0,
        rslora: false,
        targets: if targets == ["all-linear"] {
            Targets::all_linear()
        } else {
            Targets::names(targets.to_vec())
        },
        base_model: None,
    }
}

fn base() -> Policy {
    naive::policy(&naive::config(Family::Qwen2), 3)
}

/// A policy whose adapter changes every linear map.
fn adapted(config: AdapterConfig) -> Policy {
    let policy = base().with_new_adapter(config, 7).unwrap();
    let grow = |tensor: &Tensor| {
        let numbers = Tensor::arange(tensor.numel() as i64, (Kind::Float, tensor.device()));
        tensor.shallow_clone().copy_(&((numbers * 1.3).sin() * 0.2).view(&tensor.size()[..]));
    };
    no_grad(|| policy.trainable().iter().for_each(|(_, tensor)| grow(tensor)));
    policy
}

fn batch() -> Packed {
    let group =
        |prompt, completions: [&'static [u32]; 2]| GroupTokens { prompt, completions: completions.into() };
    Packed::new(&[group(&[1, 2, 3, 4], [&[5, 6, 7], &[8]]), group(&[9, 10], [&[11, 12], &[13, 14, 15, 16]])])
        .unwrap()
}

fn scores(policy: &Policy) -> Tensor {
    policy.score(&batch(), 1.0, Entropy::Skipped).unwrap().logprobs
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn a_new_adapter_changes_nothing_and_a_trained_one_belongs_to_the_reference() {
    let plain = scores(&base());
    let fresh = base().with_new_adapter(adapter_config(&["all-linear"]), 7).unwrap();
    assert_eq!(scores(&fresh), plain);
    assert!(fresh.reference().adapter().is_none(), "a neutral adapter is omitted");
    let adapted = adapted(adapter_config(&["all-linear"]));
    assert!(largest_difference(&scores(&adapted), &plain) > 0.1);
    let reference = adapted.reference();
    let before = scores(&reference);
    assert_eq!(before, scores(&adapted));
    no_grad(|| adapted.trainable().iter().for_each(|(_, tensor)| _ = tensor.shallow_clone().zero_()));
    assert_eq!(scores(&adapted), plain);
    assert_eq!(scores(&reference), before);
}

#[test]
fn new_adapters_are_functions_of_their_seed() {
    let a = |seed| {
        let policy = base().with_new_adapter(adapter_config(&["q_proj", "down_proj"]), seed).unwrap();
        let names: Vec<_> = policy.trainable().iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names.len(), 2 * 2 * policy.config().num_hidden_layers as usize);
        assert_eq!(names[0], "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
        policy.trainable()[0].1.copy()
    };
    assert_eq!(a(1), a(1));
    assert_ne!(a(1), a(2));
    let bound = (base().config().hidden_size as f64).sqrt().recip();
    assert!(a(1).abs().max().double_value(&[]) <= bound);
}

#[test]
fn merged_scores_match_base_and_adapter() {
    for rslora in [false, true] {
        let policy = adapted(AdapterConfig { rslora, ..adapter_config(&["all-linear"]) });
        let folder = tempfile::tempdir().unwrap();
        let (model, adapter) = (folder.path().join("model"), folder.path().join("adapter"));
        policy.save(&model).unwrap();
        policy.save_trained(&adapter, Some("model".into()), Durability::Durable).unwrap();
        for (name, shard_bytes) in [("one", u64::MAX), ("several", 5_000)] {
            let out = folder.path().join(name);
            fs::create_dir(&out).unwrap();
            let mut done = Vec::new();
            merge(&model, &adapter, &out, shard_bytes, |count, of| done.push((count, of))).unwrap();
            assert_eq!(done.last(), Some(&(policy.parameters().len(), policy.parameters().len())));
            assert_eq!(out.join("model.safetensors.index.json").exists(), shard_bytes == 5_000);
            fs::copy(model.join("config.json"), out.join("config.json")).unwrap();
            let merged = Policy::load(&out, LoadOptions::default()).unwrap();
            assert!(largest_difference(&scores(&merged), &scores(&policy)) < 1e-5);
        }
    }
}

#[test]
fn versions_with_and_without_an_adapter_can_alternate() {
    let folder = tempfile::tempdir().unwrap();
    let (model, small, large, both) = (
        folder.path().join("model"),
        folder.path().join("small"),
        folder.path().join("large"),
        folder.path().join("both"),
    );
    base().save(&model).unwrap();
    let small_adapter = adapted(adapter_config(&["v_proj"]));
    small_adapter.save_trained(&small, None, Durability::Durable).unwrap();
    let large_adapter = adapted(adapter_config(&["all-linear"]));
    large_adapter.save_trained(&large, None, Durability::Durable).unwrap();
    large_adapter.save(&both).unwrap();
    large_adapter.save_trained(&both, None, Durability::Durable).unwrap();

    let expected =
        [(&model, scores(&base())), (&small, scores(&small_adapter)), (&large, scores(&large_adapter))];
    let mut policy = Policy::load(&model, LoadOptions::default()).unwrap();
    for place in [1, 1, 2, 0, 2, 0, 0] {
        let (folder, scores_of_version) = &expected[place];
        policy.assign_from(folder).unwrap();
        assert_eq!(&scores(&policy), scores_of_version, "{}", folder.display());
    }
    let together = Policy::load(&both, LoadOptions::default()).unwrap();
    assert_eq!(scores(&together), expected[2].1);
    policy.assign_from(&both).unwrap();
    assert_eq!(scores(&policy), expected[2].1);
    let again = base().with_adapter(&large).unwrap();
    assert_eq!(scores(&again), expected[2].1);
}

#[test]
fn cached_decoding_applies_the_adapter() {
    let policy = adapted(adapter_config(&["all-linear"]));
    let sampling = Sampling {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        greedy: false,
        max_new_tokens: 6,
        stop_token_ids: vec![],
    };
    let prompt = vec![1, 2, 3];
    let uniform = |_, sample: usize, position: usize| ((sample * 7 + position * 3) % 10) as f64 / 10.0;
    let generated =
        generate(&policy, std::slice::from_ref(&prompt), 2, &sampling, &uniform, &|| false).unwrap();
    for sampled in &generated.groups[0] {
        let completions = vec![sampled.token_ids.as_slice()];
        let packed = Packed::new(&[GroupTokens { prompt: &prompt, completions }]).unwrap();
        let scored = policy.score(&packed, 1.0, Entropy::Skipped).unwrap().logprobs;
        assert!(largest_difference(&scored, &Tensor::from_slice(&sampled.logprobs)) < 1e-5);
    }
}

/// Gradients of the adapter for a batch.
fn gradients(policy: &mut Policy, batch: &Packed, options: TrainingOptions) -> Vec<Tensor> {
    policy.set_training(true);
    policy.clear_gradients();
    let pass = policy.training_pass(batch, options).unwrap();
    (pass.scores().logprobs.square().sum(Kind::Float) * 0.1).backward();
    pass.backward();
    assert!(policy.parameters().iter().all(|(_, tensor)| !tensor.requires_grad()), "the model is frozen");
    policy.trainable().iter().map(|(_, tensor)| tensor.grad().copy()).collect()
}

#[test]
fn gradients_match_finite_differences() {
    let mut policy = adapted(adapter_config(&["q_proj", "o_proj", "gate_proj"]));
    let analytic = gradients(&mut policy, &batch(), TrainingOptions::default());
    let loss = |policy: &Policy| {
        let loss = scores(policy).to_kind(Kind::Double).square().sum(Kind::Double) * 0.1;
        loss.double_value(&[])
    };
    for (place, gradient) in analytic.iter().enumerate() {
        let parameter = policy.trainable()[place].1.detach();
        let element = parameter.view(-1).get(1);
        let (value, step) = (element.double_value(&[]), 0.01);
        let at = |x: f64| {
            no_grad(|| _ = element.shallow_clone().fill_(x));
            loss(&policy)
        };
        let numeric = (at(value + step) - at(value - step)) / (2.0 * step);
        at(value);
        let found = gradient.view(-1).get(1).double_value(&[]);
        assert!((found - numeric).abs() < 2e-3 * (1.0 + numeric.abs()), "{found} instead of {numeric}");
    }
}

#[test]
fn dropout_survives_recomputation_and_any_cut_of_the_batch() {
    let mut policy = adapted(adapter_config(&["all-linear"]));
    let dropout = |seed| Some(AdapterDropout { share: 0.3, seed });
    let with = |seed| TrainingOptions { dropout: dropout(seed), ..TrainingOptions::default() };
    let whole = gradients(&mut policy, &batch(), with(1));
    let same = |one: &[Tensor], other: &[Tensor]| {
        one.iter().zip(other).all(|(one, other)| largest_difference(one, other) < 1e-5)
    };
    let recomputed = gradients(&mut policy, &batch(), TrainingOptions { recompute_layers: true, ..with(1) });
    assert!(same(&whole, &recomputed));
    let group = |prompt, completions: [&'static [u32]; 2]| {
        Packed::new(&[GroupTokens { prompt, completions: completions.into() }]).unwrap()
    };
    // The other group first, which moves its rows.
    let second = gradients(&mut policy, &group(&[9, 10], [&[11, 12], &[13, 14, 15, 16]]), with(1));
    let first = gradients(&mut policy, &group(&[1, 2, 3, 4], [&[5, 6, 7], &[8]]), with(1));
    let sum: Vec<Tensor> = first.iter().zip(&second).map(|(one, other)| one + other).collect();
    assert!(same(&whole, &sum));
    assert!(!same(&whole, &gradients(&mut policy, &batch(), with(2))));
    assert!(!same(&whole, &gradients(&mut policy, &batch(), TrainingOptions::default())));
}

#[test]
fn an_adapter_of_another_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    adapted(adapter_config(&["q_proj"])).save_trained(folder.path(), None, Durability::Durable).unwrap();
    let wider = Config { hidden_size: 32, ..naive::config(Family::Qwen2) };
    let error = naive::policy(&wider, 3).with_adapter(folder.path()).unwrap_err().to_string();
    assert!(error.contains("q_proj.lora_A.weight") && error.contains("expected [3, 32]"), "{error}");
}
