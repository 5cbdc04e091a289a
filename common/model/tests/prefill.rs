//! Prompts in chunks: the same results as at once within rounding, the same bits on repetition, less memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use podium_grpo::Sampling;
use podium_model::{Batch, Config, Family, Generated, Policy, generate_restricted};
use podium_torch_shim::track;

fn run(policy: &Policy, prompts: &[Vec<u32>], prefill_tokens: usize) -> Generated {
    let sampling = Sampling { max_new_tokens: 6, ..Sampling::default() };
    let uniform = |prompt: usize, sample: usize, position: usize| {
        (prompt as f64 * 0.37 + sample as f64 * 0.71 + position as f64 * 0.618_033).fract()
    };
    let batch = Batch { prompts, group_size: 3, prefill_tokens };
    generate_restricted(policy, batch, &sampling, &uniform, &mut |_, _, _| None, &|| false).unwrap()
}

/// Prompts of these lengths.
fn prompts(lengths: &[usize]) -> Vec<Vec<u32>> {
    let token = |prompt: usize, position: usize| (prompt * 11 + position * position * 5) as u32 % 37;
    let prompt = |(index, length): (usize, &usize)| (0..*length).map(|place| token(index, place)).collect();
    lengths.iter().enumerate().map(prompt).collect()
}

/// Asserts the same tokens, and log-probabilities that differ by rounding.
fn assert_close(found: &Generated, expected: &Generated, what: &str) {
    assert_eq!(found.prefill_tokens, expected.prefill_tokens);
    for (found, expected) in found.groups.iter().flatten().zip(expected.groups.iter().flatten()) {
        assert_eq!(found.token_ids, expected.token_ids, "{what}");
        for (found, expected) in found.logprobs.iter().zip(&expected.logprobs) {
            assert!((found - expected).abs() < 1e-5, "{what}: {found} instead of {expected}");
        }
    }
}

#[test]
fn chunks_give_the_results_of_all_prompts_at_once() {
    for family in [Family::Qwen3, Family::Qwen2, Family::Llama] {
        let policy = naive::policy(&naive::config(family), 31);
        for lengths in [[5, 1, 11, 23, 4], [7, 7, 7, 7, 7]] {
            let prompts = prompts(&lengths);
            let at_once = run(&policy, &prompts, usize::MAX);
            // Several prompts, one prompt, parts of some prompts, parts of every prompt.
            for budget in [35, 23, 8, 3, 1] {
                let what = format!("{family:?}, {lengths:?}, {budget} tokens");
                let chunked = run(&policy, &prompts, budget);
                assert_close(&chunked, &at_once, &what);
                assert_eq!(run(&policy, &prompts, budget), chunked, "{what}: a repetition has the same bits");
            }
            let enough = prompts.len() * lengths.iter().max().unwrap();
            assert_eq!(run(&policy, &prompts, enough), at_once, "one chunk is the same computation");
        }
    }
}

#[test]
fn chunks_of_fewer_tokens_take_less_memory() {
    let config = Config { vocab_size: 37, intermediate_size: 400, ..naive::config(Family::Qwen3) };
    let policy = naive::policy(&config, 32);
    let peak = |lengths: &[usize], budget: usize| {
        let prompts = prompts(lengths);
        track(|| run(&policy, &prompts, budget)).unwrap().1.peak as f64
    };
    let eight = [100; 8];
    let whole = peak(&eight, usize::MAX);
    for (prompts, share) in [(4, 0.6), (2, 0.35), (1, 0.25)] {
        let chunked = peak(&eight, prompts * 100);
        assert!(chunked < share * whole, "{prompts} prompts at once: {chunked} of {whole} bytes");
    }
    let (whole, parts) = (peak(&[200], usize::MAX), peak(&[200], 50));
    assert!(parts < 0.8 * whole, "a prompt in four parts: {parts} of {whole} bytes");
}
