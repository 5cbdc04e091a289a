//! Continuations of prompts have the log-probabilities of separate sequences, whatever the chunks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use podium_model::{Continuations, Entropy, Family, GroupTokens, Packed, Policy};

fn token(number: usize) -> u32 {
    (number * number * 5 + number) as u32 % 37
}

fn tokens(seed: usize, length: usize) -> Vec<u32> {
    (0..length).map(|place| token(11 * seed + place)).collect()
}

/// Log-probabilities by packed scoring.
fn packed(policy: &Policy, prompt: &[u32], continuations: &[Vec<u32>]) -> Vec<f64> {
    let completions = continuations.iter().map(Vec::as_slice).collect();
    let batch = Packed::new(&[GroupTokens { prompt, completions }]).unwrap();
    let logprobs = policy.score(&batch, 1.0, Entropy::Skipped).unwrap().logprobs;
    let mut logprobs = Vec::<f32>::try_from(logprobs).unwrap().into_iter();
    let sum = |tokens: &Vec<u32>| logprobs.by_ref().take(tokens.len()).map(f64::from).sum();
    continuations.iter().map(sum).collect()
}

#[test]
fn continuations_score_the_same_as_completions() {
    let texts: Vec<Vec<u32>> =
        [1, 3, 2, 5, 3, 1, 4].iter().enumerate().map(|(seed, &length)| tokens(seed, length)).collect();
    let continuations = Continuations::new(texts.clone()).unwrap();
    let prompts: Vec<Vec<u32>> = [5, 1, 19].iter().map(|&length| tokens(length, length)).collect();
    for family in [Family::Qwen3, Family::Qwen2, Family::Llama] {
        let policy = naive::policy(&naive::config(family), 31);
        for prefill_tokens in [usize::MAX, 6, 1] {
            let found = policy.continuation_logprobs(&prompts, &continuations, prefill_tokens).unwrap();
            for (prompt, found) in prompts.iter().zip(&found) {
                for (found, expected) in found.iter().zip(packed(&policy, prompt, &texts)) {
                    assert!((found - expected).abs() < 1e-4, "{family:?}: {found}, expected {expected}");
                }
            }
            let again = policy.continuation_logprobs(&prompts, &continuations, prefill_tokens).unwrap();
            assert_eq!(again, found, "a repetition has the same bits");
        }
    }
}

#[test]
fn many_continuations_are_computed_in_chunks() {
    let policy = naive::policy(&naive::config(Family::Qwen3), 8);
    // More rows than one chunk has.
    let texts: Vec<Vec<u32>> = (0..5_000).map(|seed| tokens(seed % 36, 3)).collect();
    let prompt = tokens(1, 4);
    let found = policy
        .continuation_logprobs(
            std::slice::from_ref(&prompt),
            &Continuations::new(texts.clone()).unwrap(),
            usize::MAX,
        )
        .unwrap();
    let expected = packed(&policy, &prompt, &texts[..36]);
    for (index, found) in found[0].iter().enumerate() {
        assert!((found - expected[index % 36]).abs() < 1e-4, "continuation {index}");
    }
}

#[test]
fn unusable_continuations_are_refused() {
    assert!(Continuations::new(vec![]).is_none() && Continuations::new(vec![vec![1], vec![]]).is_none());
    let config = naive::config(Family::Qwen3);
    let policy = naive::policy(&config, 8);
    let error = |prompt: Vec<u32>, text: Vec<u32>| {
        let continuations = Continuations::new(vec![vec![1], text]).unwrap();
        policy.continuation_logprobs(&[vec![1], prompt], &continuations, 8).unwrap_err().to_string()
    };
    let unknown = error(vec![1], vec![config.vocab_size as u32]);
    assert!(unknown.contains(&format!("token id {}", config.vocab_size)), "{unknown}");
    let limit = config.max_position_embeddings as usize;
    let long = error(vec![1; limit], vec![1; 2]);
    assert!(long.contains(&limit.to_string()), "{long}");
}
