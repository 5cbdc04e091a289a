//! Checkpoints and adapters written by Transformers and PEFT, with their log-probabilities and greedy tokens. `make
//! fixtures` regenerates the files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use podium_grpo::Sampling;
use podium_model::{Entropy, GroupTokens, LoadOptions, Packed, Policy, device, generate};
use serde::Deserialize;

/// Largest allowed difference of a log-probability.
const LIMIT: f32 = 1e-4;

/// A prompt, a completion, and the reference's values.
#[derive(Deserialize)]
struct Row {
    prompt_ids: Vec<u32>,
    completion_ids: Vec<u32>,
    base: Expected,
    adapted: Expected,
}

#[derive(Deserialize)]
struct Expected {
    /// At temperature 1.
    logprobs: Vec<f32>,
    /// At temperature 0.7.
    cool_logprobs: Vec<f32>,
    /// The most probable tokens after the prompt.
    greedy: Vec<u32>,
}

fn assert_same(policy: &Policy, rows: &[Row], expected: impl Fn(&Row) -> &Expected) {
    let groups: Vec<_> = rows
        .iter()
        .map(|row| GroupTokens { prompt: &row.prompt_ids, completions: vec![&row.completion_ids] })
        .collect();
    let batch = Packed::new(&groups).unwrap();
    let assert_scores = |temperature: f64, expected: Vec<f32>| {
        let scores = policy.score(&batch, temperature, Entropy::Skipped).unwrap();
        let found = Vec::<f32>::try_from(scores.logprobs).unwrap();
        assert_eq!(found.len(), expected.len());
        for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
            let difference = (found - expected).abs();
            assert!(difference < LIMIT, "temperature {temperature}, token {place}: {found}, not {expected}");
        }
    };
    assert_scores(1.0, rows.iter().flat_map(|row| expected(row).logprobs.clone()).collect());
    assert_scores(0.7, rows.iter().flat_map(|row| expected(row).cool_logprobs.clone()).collect());

    let prompts: Vec<_> = rows.iter().map(|row| row.prompt_ids.clone()).collect();
    let max_new_tokens = expected(&rows[0]).greedy.len();
    let sampling = Sampling { greedy: true, max_new_tokens, ..Sampling::default() };
    let generated = generate(policy, &prompts, 1, &sampling, &|_, _, _| 0.5, &|| false).unwrap();
    for (row, group) in rows.iter().zip(generated.groups) {
        assert_eq!(group[0].token_ids, expected(row).greedy, "after {:?}", row.prompt_ids);
    }
}

fn compare(family: &str) {
    // Tests already run in parallel.
    device::set_threads(1).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(family);
    let rows: Vec<Row> = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let base = Policy::load(&folder, LoadOptions::default()).unwrap();
    assert_same(&base, &rows, |row| &row.base);
    let adapted = base.with_adapter(&folder.join("adapter")).unwrap();
    assert_same(&adapted, &rows, |row| &row.adapted);
}

/// Tied, two queries per key, an adapter that lists its layers one by one.
#[test]
fn qwen3_matches_transformers() {
    compare("qwen3");
}

/// Untied, one key per query.
#[test]
fn qwen2_matches_transformers() {
    compare("qwen2");
}

/// bfloat16 files, one key for all queries, scaled rotations, an adapter that lists types of layers.
#[test]
fn llama_matches_transformers() {
    compare("llama");
}
