//! The formulas of `podium-memory` against the allocations of libtorch.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use podium_checkpoint::adapter::{AdapterConfig, Targets};
use podium_grpo::Sampling;
use podium_memory::Selection::{Greedy, Sampled};
use podium_memory::{Lease, Model, Number, Phase, Selection, Worker, peak};
use podium_model::{Batch, Config, LoadOptions, Policy, device, generate_restricted};
use podium_torch_shim::track;
use tch::Device;

/// Width, feed-forward width, layers, heads, key heads, width of a head, vocabulary, family.
type Shape = (i64, i64, i64, i64, i64, i64, i64, &'static str);

const SHAPES: [Shape; 3] = [
    (64, 288, 3, 4, 2, 32, 500, "qwen3"),
    (128, 256, 4, 8, 2, 16, 300, "llama"),
    (96, 384, 2, 6, 6, 16, 2000, "qwen2"),
];

fn config((hidden, feed_forward, layers, heads, keys, head, vocabulary, family): Shape) -> Config {
    let text = format!(
        r#"{{"model_type": "{family}", "vocab_size": {vocabulary}, "hidden_size": {hidden},
            "intermediate_size": {feed_forward}, "num_hidden_layers": {layers}, "num_attention_heads": {heads},
            "num_key_value_heads": {keys}, "head_dim": {head}, "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "initializer_range": 0.02}}"#
    );
    Config::parse(&text, Path::new("config.json")).unwrap()
}

fn adapter() -> AdapterConfig {
    AdapterConfig {
        rank: 4,
        alpha: 8.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::all_linear(),
        base_model: None,
    }
}

/// Prompts, completions of each, tokens of a prompt, tokens of a completion.
type Sizes = (u64, u64, u64, u64);

#[derive(Debug, Clone, Copy)]
struct Case {
    shape: Shape,
    number: Number,
    adapted: bool,
    lease: Sizes,
    prefill_tokens: u64,
    selection: Selection,
}

/// Peak without the weights. Decoding computes the operations of a GPU, which the formula is for.
fn measured(case: &Case, decodes: bool) -> i64 {
    device::set_threads(1).unwrap();
    let (prompts, group_size, prompt_tokens, completion_tokens) = case.lease;
    let prompt = |index: u64| (0..prompt_tokens).map(|place| ((place * 7 + index) % 300) as u32).collect();
    let prompts: Vec<Vec<u32>> = (0..prompts).map(prompt).collect();
    let sampling = Sampling {
        greedy: case.selection == Selection::Greedy,
        max_new_tokens: completion_tokens as usize,
        ..Sampling::default()
    };
    let batch = Batch {
        prompts: &prompts,
        group_size: group_size as usize,
        prefill_tokens: case.prefill_tokens as usize,
    };
    let options = LoadOptions::new(Device::Cpu, Some(case.number == Number::Bfloat16));
    let options = if decodes { options.as_on_a_gpu() } else { options };
    // As on a GPU, where flash kernels compute in bfloat16 alone.
    let options = options.with_materialized_attention(case.number == Number::Float32);
    let policy = Policy::random(&config(case.shape), 1, options).unwrap();
    let policy = if case.adapted { policy.with_new_adapter(adapter(), 2).unwrap() } else { policy };
    let sample = || {
        let uniform = |_: usize, sample: usize, position: usize| (sample + position) as f64 % 1.0;
        generate_restricted(&policy, batch, &sampling, &uniform, &mut |_, _, _| None, &|| false).unwrap();
    };
    track(sample).unwrap().1.peak
}

fn formula(case: &Case) -> [Phase; 2] {
    let (prompts, group_size, prompt_tokens, completion_tokens) = case.lease;
    let adapter = case.adapted.then(adapter);
    let worker = Worker {
        model: Model::new(&config(case.shape), case.number, adapter.as_ref()).unwrap(),
        lease: Lease { prompts, group_size, prompt_tokens, completion_tokens },
        prefill_tokens: case.prefill_tokens,
        selection: case.selection,
        constrains: false,
        merges: false,
    };
    worker.phases()
}

/// Bytes that flash kernels of CPUs with bfloat16 units take besides: copies of keys and values in the order of the units,
/// for every query head. GPUs take none.
fn packed(case: &Case) -> u64 {
    let (prompts, _, prompt_tokens, _) = case.lease;
    let (_, _, _, heads, _, head_dim, ..) = case.shape;
    let tokens = (prompts * prompt_tokens).min(case.prefill_tokens.max(prompt_tokens));
    let packs = case.number == Number::Bfloat16 && device::has_bfloat16_units();
    if packs { 2 * 2 * tokens * (heads * head_dim) as u64 } else { 0 }
}

/// Asserts that the measured peaks are within a tenth of the formula, in the phase `name`.
fn assert_close(leases: &[(Sizes, u64, Selection)], name: &str) {
    for shape in SHAPES {
        for number in [Number::Float32, Number::Bfloat16] {
            for (lease, prefill_tokens, selection) in leases.iter().copied() {
                for adapted in [false, true] {
                    let case = Case { shape, number, adapted, lease, prefill_tokens, selection };
                    let expected = peak(&formula(&case));
                    assert_eq!(expected.name, name, "{case:?}");
                    let found = measured(&case, name == "decode");
                    let computed = expected.total() - expected.weights;
                    let ratio = |more: u64| found as f64 / (computed + more) as f64;
                    println!("{:.3} of the formula in {name}: {case:?}", ratio(0));
                    assert!(
                        ratio(0) > 0.9 && ratio(packed(&case)) < 1.1,
                        "{:.3} of the formula, {expected:?}: {case:?}",
                        ratio(0)
                    );
                }
            }
        }
    }
}

#[test]
fn prefill_takes_the_memory_of_the_formula() {
    let all = u64::MAX;
    // One chunk of short and of long prompts, chunks of two prompts, a prompt in parts. Caches of a CPU have multiples of 16
    // positions.
    let leases = [
        ((8, 1, 64, 1), all, Sampled),
        ((4, 1, 304, 1), all, Sampled),
        ((4, 1, 96, 1), 192, Sampled),
        ((1, 1, 896, 1), 128, Sampled),
    ];
    assert_close(&leases, "prefill");
}

#[test]
fn decoding_takes_the_memory_of_the_formula() {
    let all = u64::MAX;
    // Logits of sampled and of the most probable tokens, and buffers that are doubled.
    assert_close(
        &[((4, 64, 8, 20), all, Sampled), ((4, 64, 8, 20), all, Greedy), ((4, 32, 60, 140), all, Sampled)],
        "decode",
    );
}
