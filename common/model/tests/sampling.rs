//! Sampling: the tokens follow the documented distribution, independent of the rest of the batch.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use std::cell::{Cell, RefCell};

use podium_grpo::{FinishReason, Sampling, sampling};
use podium_model::generate::Error;
use podium_model::{Config, Family, Generated, LoadOptions, Policy, Sampled, generate, packed};
use tch::{Tensor, no_grad};

fn policy() -> Policy {
    naive::policy(&naive::config(Family::Qwen3), 21)
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1, 2, 3, 4, 5], vec![6], vec![7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8]]
}

/// Pseudo-random uniform numbers.
fn uniform(prompt: usize, sample: usize, position: usize) -> f64 {
    let mixed = (prompt as f64 + 1.0) * 0.754_877 + sample as f64 * 0.569_840 + position as f64 * 0.618_034;
    (mixed * 97.0).fract()
}

fn run(policy: &Policy, prompts: &[Vec<u32>], group_size: usize, sampling: &Sampling) -> Generated {
    generate(policy, prompts, group_size, sampling, &uniform, &|| false).unwrap()
}

/// Probabilities of the token after a prompt.
fn distribution(policy: &Policy, prompt: &[u32], temperature: f64) -> Vec<f64> {
    let after_last = naive::distributions(policy, prompt, temperature).get(prompt.len() as i64 - 1);
    Vec::try_from(after_last.exp()).unwrap()
}

/// Returns the token that each of many evenly spaced uniform numbers selects.
fn sweep(policy: &Policy, sampling: &Sampling, numbers: usize) -> Vec<Sampled> {
    let spread = |_, sample: usize, _| (sample as f64 + 0.5) / numbers as f64;
    let sampling = Sampling { max_new_tokens: 1, ..sampling.clone() };
    let prompt = prompts()[..1].to_vec();
    generate(policy, &prompt, numbers, &sampling, &spread, &|| false).unwrap().groups.remove(0)
}

#[test]
fn tokens_follow_the_full_distribution() {
    let policy = policy();
    let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
    let expected = distribution(&policy, &prompts()[0], 0.8);
    let drawn = sweep(&policy, &sampling, 4000);
    for (token, probability) in expected.iter().enumerate() {
        let of_token = drawn.iter().filter(|one| one.token_ids == [token as u32]);
        let share = of_token.clone().count() as f64 / 4000.0;
        assert!((share - probability).abs() < 1e-3, "token {token}: {share}, expected {probability}");
        for one in of_token {
            assert!((f64::from(one.logprobs[0]) - probability.ln()).abs() < 1e-5);
            assert_eq!(one.sampled_logprobs, None);
        }
    }
}

/// Checks a truncated sampler against the retained tokens.
fn assert_truncated(policy: &Policy, sampling: &Sampling, kept: &[usize]) {
    let expected = distribution(policy, &prompts()[0], sampling.temperature);
    let mass: f64 = kept.iter().map(|token| expected[*token]).sum();
    let drawn = sweep(policy, sampling, 2000);
    for (token, probability) in expected.iter().enumerate() {
        let of_token = drawn.iter().filter(|one| one.token_ids == [token as u32]);
        let share = of_token.clone().count() as f64 / 2000.0;
        let expected = if kept.contains(&token) { probability / mass } else { 0.0 };
        assert!((share - expected).abs() < 1e-3, "token {token}: {share}, expected {expected}");
        for one in of_token {
            let truncated = f64::from(one.sampled_logprobs.as_ref().unwrap()[0]);
            assert!((f64::from(one.logprobs[0]) - probability.ln()).abs() < 1e-5);
            assert!((truncated - expected.ln()).abs() < 1e-5);
        }
    }
}

#[test]
fn filters_keep_the_most_likely_tokens() {
    let policy = policy();
    let expected = distribution(&policy, &prompts()[0], 1.0);
    let mut ranked: Vec<usize> = (0..expected.len()).collect();
    ranked.sort_by(|a, b| expected[*b].total_cmp(&expected[*a]));
    let needed = |ranked: &[usize], top_p: f64| {
        let total: f64 = ranked.iter().map(|token| expected[*token]).sum();
        let mut reached = 0.0;
        let short = ranked.iter().take_while(|token| {
            let short = reached < top_p * total;
            reached += expected[**token];
            short
        });
        short.count()
    };
    let top_k = Sampling { top_k: 5, ..Sampling::default() };
    assert_truncated(&policy, &top_k, &ranked[..5]);
    assert_truncated(&policy, &Sampling { top_k: 1, ..Sampling::default() }, &ranked[..1]);
    assert_truncated(&policy, &Sampling { top_k: 1000, ..Sampling::default() }, &ranked);
    for top_p in [0.9, 0.5, 1e-9] {
        let alone = Sampling { top_p, ..Sampling::default() };
        assert_truncated(&policy, &alone, &ranked[..needed(&ranked, top_p)]);
        let both = Sampling { top_p, ..top_k.clone() };
        assert_truncated(&policy, &both, &ranked[..needed(&ranked[..5], top_p)]);
    }
}

#[test]
fn top_p_over_a_large_flat_vocabulary_sorts_all_of_it() {
    let config = Config { vocab_size: 1000, initializer_range: 0.01, ..naive::config(Family::Qwen3) };
    let policy = naive::policy(&config, 22);
    let drawn = sweep(&policy, &Sampling { top_p: 0.9, ..Sampling::default() }, 1000);
    let mut tokens: Vec<_> = drawn.iter().map(|one| one.token_ids[0]).collect();
    tokens.dedup();
    // Nearly uniform: nine tenths of the mass are about nine tenths of the tokens.
    assert!((830..930).contains(&tokens.len()), "{}", tokens.len());
    let ratio = drawn[0].sampled_logprobs.as_ref().unwrap()[0] - drawn[0].logprobs[0];
    assert!((f64::from(ratio) + 0.9_f64.ln()).abs() < 1e-2, "{ratio}");
}

#[test]
fn greedy_takes_the_most_likely_token_and_the_lowest_of_equals() {
    let policy = policy();
    // Tokens 10 and 30 become equal, and likelier than all others: the embedding is the head.
    let embedding = &policy.parameters()[0].1;
    no_grad(|| {
        let mut likely = embedding.get(30);
        likely.copy_(&(embedding.get(30) * 20.0));
        embedding.get(10).copy_(&likely);
    });
    for sampling in [
        Sampling { temperature: 0.0, max_new_tokens: 9, ..Sampling::default() },
        Sampling { greedy: true, top_p: 0.3, max_new_tokens: 9, ..Sampling::default() },
    ] {
        for (prompt, group) in prompts().iter().zip(run(&policy, &prompts(), 2, &sampling).groups) {
            // Rows of one product may be rounded differently.
            assert_eq!(group[0].token_ids, group[1].token_ids);
            assert_eq!(group[0].sampled_logprobs, None);
            let mut sequence = prompt.clone();
            for (token, logprob) in group[0].token_ids.iter().zip(&group[0].logprobs) {
                let expected = distribution(&policy, &sequence, 1.0);
                let best = expected.iter().copied().fold(0.0, f64::max);
                assert!((f64::from(*logprob) - best.ln()).abs() < 1e-4);
                assert_ne!(*token, 30);
                sequence.push(*token);
            }
        }
    }
}

#[test]
fn stop_tokens_end_completions_and_are_retained() {
    let policy = policy();
    let sampling = Sampling { max_new_tokens: 40, stop_token_ids: vec![3, 9, 17], ..Sampling::default() };
    let generated = run(&policy, &prompts(), 8, &sampling);
    let all: Vec<_> = generated.groups.iter().flatten().collect();
    for one in &all {
        let stops = one.token_ids.iter().filter(|token| sampling.stop_token_ids.contains(token)).count();
        match one.finish_reason {
            FinishReason::Stop => {
                assert!(stops == 1 && sampling.stop_token_ids.contains(one.token_ids.last().unwrap()));
            }
            FinishReason::Length => assert!(stops == 0 && one.token_ids.len() == 40),
        }
        assert_eq!(one.token_ids.len(), one.logprobs.len());
    }
    assert!(all.iter().any(|one| one.finish_reason == FinishReason::Stop));
    // Finished completions were dropped: with all lanes to the end it would be 24 rows for each step.
    let steps = all.iter().map(|one| one.token_ids.len()).max().unwrap() - 1;
    assert!(generated.decode_rows < 24 * steps, "{} rows in {steps} steps", generated.decode_rows);
    assert_eq!(generated.prefill_tokens, 17);
}

#[test]
fn the_same_call_gives_the_same_bits_and_batching_changes_only_rounding() {
    let policy = policy();
    let sampling =
        Sampling { max_new_tokens: 30, top_p: 0.95, stop_token_ids: vec![3], ..Sampling::default() };
    let together = run(&policy, &prompts(), 3, &sampling);
    assert_eq!(together, run(&policy, &prompts(), 3, &sampling));
    for (index, prompt) in prompts().into_iter().enumerate() {
        let own = |_, sample, position| uniform(index, sample, position);
        let alone = generate(&policy, &[prompt], 3, &sampling, &own, &|| false).unwrap();
        for (one, other) in alone.groups[0].iter().zip(&together.groups[index]) {
            assert_eq!(one.token_ids, other.token_ids);
            for (own, other) in one.logprobs.iter().zip(&other.logprobs) {
                assert!((own - other).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn each_token_has_one_uniform_number() {
    let asked = RefCell::new(Vec::new());
    let record = |prompt, sample, position| {
        asked.borrow_mut().push((prompt, sample, position));
        uniform(prompt, sample, position)
    };
    let sampling = Sampling { max_new_tokens: 12, stop_token_ids: vec![3, 9], ..Sampling::default() };
    let generated = generate(&policy(), &prompts(), 2, &sampling, &record, &|| false).unwrap();
    let mut expected = Vec::new();
    for (prompt, group) in generated.groups.iter().enumerate() {
        for (sample, one) in group.iter().enumerate() {
            expected.extend((0..one.token_ids.len()).map(|position| (prompt, sample, position)));
        }
    }
    let mut asked = asked.into_inner();
    asked.sort_unstable();
    assert_eq!(asked, expected);
}

#[test]
fn a_caller_can_stop_between_steps() {
    let left = Cell::new(3);
    let stop = || left.replace(left.get() - 1) == 0;
    let result = generate(&policy(), &prompts(), 2, &Sampling::default(), &uniform, &stop);
    assert!(matches!(result, Err(Error::Stopped { steps: 3 })));
}

#[test]
fn invalid_sampling_inputs_are_refused() {
    let policy = policy();
    let refused = |prompts: &[Vec<u32>], group_size: usize, sampling: Sampling| {
        generate(&policy, prompts, group_size, &sampling, &uniform, &|| false).unwrap_err()
    };
    let default = Sampling::default;
    assert!(matches!(refused(&prompts(), 0, default()), Error::GroupSize));
    assert!(matches!(refused(&[], 1, default()), Error::Prompts(packed::Error::NoPrompt)));
    assert!(matches!(
        refused(&[vec![1], vec![]], 1, default()),
        Error::Prompts(packed::Error::EmptyPrompt { prompt: 1 })
    ));
    assert!(matches!(refused(&[vec![99]], 1, default()), Error::Prompts(packed::Error::Vocabulary { .. })));
    let long = Sampling { max_new_tokens: 252, ..default() };
    assert!(matches!(
        refused(&prompts(), 1, long),
        Error::Prompts(packed::Error::TooLong { length: 263, .. })
    ));
    for (sampling, expected) in [
        (Sampling { temperature: -1.0, ..default() }, sampling::Error::Temperature(-1.0)),
        (Sampling { top_p: 0.0, ..default() }, sampling::Error::TopP(0.0)),
        (Sampling { max_new_tokens: 0, ..default() }, sampling::Error::MaxNewTokens),
    ] {
        assert!(matches!(refused(&prompts(), 1, sampling), Error::Sampling(error) if error == expected));
    }
    assert!(Sampling { temperature: f64::NAN, ..default() }.check().is_err());
}

#[test]
fn non_finite_weights_are_an_error() {
    let policy = policy();
    no_grad(|| policy.parameters()[3].1.get(0).copy_(&Tensor::from(f64::NAN)));
    for sampling in [
        Sampling::default(),
        Sampling { top_p: 0.5, ..Sampling::default() },
        Sampling { greedy: true, ..Sampling::default() },
    ] {
        let result = generate(&policy, &prompts(), 2, &sampling, &uniform, &|| false);
        assert!(matches!(result, Err(Error::NotFinite { prompt: 0, sample: 0, position: 0 })));
    }
}

/// Operations of libtorch in one decoding step: a budget that may only shrink. Each is a launch on a GPU.
#[test]
fn decoding_stays_within_its_budget_of_operations() {
    let config = Config { head_dim: 16, ..naive::config(Family::Qwen3) };
    let fused = naive::policy(&config, 3);
    let folder = tempfile::tempdir().unwrap();
    fused.save(folder.path()).unwrap();
    let by_operations = Policy::load(folder.path(), LoadOptions::default().as_on_a_gpu()).unwrap();
    for (policy, most_kernels, most_copies) in [(fused, 31, 3), (by_operations, 102, 40)] {
        let layers = policy.config().num_hidden_layers as u64;
        let counted = |length: usize| {
            let sampling =
                Sampling { max_new_tokens: length, stop_token_ids: Vec::new(), ..Sampling::default() };
            let prompts = [vec![1, 2, 3], vec![4, 5]];
            let sample = || generate(&policy, &prompts, 3, &sampling, &|_, _, _| 0.5, &|| false).unwrap();
            podium_torch_shim::count(sample).unwrap().1
        };
        let (few, many) = (counted(3), counted(13));
        let per_step = |few: u64, many: u64| (many - few) / 10;
        let (kernels, reads) = (per_step(few.kernels, many.kernels), per_step(few.reads, many.reads));
        let copies = per_step(few.copies, many.copies);
        println!("{kernels} kernels, {copies} copies for {layers} layers");
        assert!(
            kernels <= most_kernels && copies <= most_copies,
            "{kernels} kernels, {copies} copies for {layers} layers"
        );
        assert_eq!(reads, 0, "a read of a number waits for the device");
    }
}
