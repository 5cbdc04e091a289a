use std::collections::BTreeMap;

use podium_config::{Model, Rollout};
use podium_grpo::FinishReason;
use podium_tokenizer::Variables;

use super::*;
use crate::lease::tests::{source, training};
use crate::policy_cache::PolicyFolders;
use crate::sampler::tests::loaded;
use crate::tiny;

/// `a`, `b`, … of the tiny vocabulary; 12 and 13 are the think tags.
const CLOSED: [u32; 5] = [12, 5, 13, 6, 7];

fn lease(likelihood: v1::Likelihood, items: &[&str], after_thinking: bool) -> Lease {
    let mut message = training(0, &["a b", "c d e f"]);
    message.sampling.as_mut().unwrap().likelihood = Some(likelihood);
    for task in &mut message.tasks {
        let items = items.iter().map(|item| (*item).to_owned()).collect();
        task.choices = Some(v1::Choices { items, count: 1, lines: false, after_thinking });
    }
    message.try_into().unwrap()
}

fn completion(token_ids: &[u32]) -> Completion {
    Completion {
        token_ids: token_ids.to_vec(),
        text: String::new(),
        text_ends: vec![0; token_ids.len()],
        logprobs: vec![0.0; token_ids.len()],
        sampled_logprobs: None,
        allowed: vec![],
        finish_reason: FinishReason::Length,
    }
}

/// A policy whose chat template ends prompts with `generation_prompt`.
fn after(generation_prompt: &str) -> Sampler {
    let mut sampler = Sampler::new(
        "cpu",
        &Model::default(),
        &Rollout::default(),
        Variables::prompt(None, &BTreeMap::new()),
    )
    .unwrap();
    let folder = tiny::with_generation_prompt(1, generation_prompt);
    sampler.load(source(0), &PolicyFolders::of_model(folder.path())).unwrap();
    sampler
}

/// The scores of two prompts, one of which has two completions.
fn scores(sampler: &Sampler, lease: &Lease, completions: &[&[u32]]) -> Vec<Vec<Vec<f64>>> {
    let prompts = [vec![2, 4, 5, 6, 3, 4], vec![2, 4, 7, 8, 9, 10, 3, 4]];
    let group: Vec<Completion> = completions.iter().map(|ids| completion(ids)).collect();
    let groups = [group.clone(), group];
    let starts = [ThinkingStart::Absent; 2];
    sampler.choice_logprobs(lease, (&prompts, &starts), &groups, &|| false).unwrap().unwrap()
}

/// Log-probability of the last tokens of a sequence, by a separate plain forward.
fn plain(sampler: &Sampler, prefix: &[u32], continuation: &[u32]) -> f64 {
    let sequence = [prefix, continuation].concat();
    let logprobs = sampler.loaded.as_ref().unwrap().policy.plain_logprobs(&sequence).unwrap();
    logprobs[prefix.len() - 1..].iter().map(|logprob| f64::from(*logprob)).sum()
}

#[test]
fn choices_score_the_same_as_separately() {
    let sampler = loaded(1);
    let items = ["a b", "c", "d e f"];
    let continuations: [&[u32]; 3] = [&[5, 6], &[7], &[8, 9, 10]];
    let first = [2, 4, 5, 6, 3, 4];
    let sum = v1::Likelihood { without_reasoning: false, per_token: false };
    for (likelihood, after_thinking, completion, head) in [
        (sum, true, &CLOSED[..], &[12_u32, 5, 13][..]),
        (sum, false, &CLOSED[..], &[12, 5, 13]),
        // Unfinished reasoning is replaced by an empty block, or removed if none is required.
        (sum, true, &[12, 5, 5], &[12, 13]),
        (sum, false, &[12, 5, 5], &[]),
        (sum, false, &[5, 6, 7], &[]),
        (v1::Likelihood { without_reasoning: true, ..sum }, true, &CLOSED, &[12, 13]),
        (v1::Likelihood { per_token: true, ..sum }, true, &CLOSED, &[12, 5, 13]),
    ] {
        let lease = lease(likelihood, &items, after_thinking);
        let scores = scores(&sampler, &lease, &[completion, &CLOSED]);
        assert_eq!(scores.len(), 2);
        for (found, continuation) in scores[0][0].iter().zip(continuations) {
            let divisor = if likelihood.per_token { continuation.len() as f64 } else { 1.0 };
            let expected = plain(&sampler, &[&first[..], head].concat(), continuation) / divisor;
            assert!((found - expected).abs() < 1e-5, "{head:?}: {found}, expected {expected}");
        }
        assert!(scores.iter().flatten().all(|scores| scores.len() == 3));
        assert_ne!(scores[0][1], scores[1][1], "the prompt matters");
    }
}

#[test]
fn choices_continue_the_think_block_of_the_prompt() {
    let prompt = [2, 4, 5, 6, 3, 4];
    let likelihood = v1::Likelihood { without_reasoning: false, per_token: false };
    let continuations: [&[u32]; 2] = [&[5, 6], &[7]];
    for (end, after_thinking, completion, head) in [
        ("assistant : <think>", true, &[5, 13, 6, 7][..], &[5_u32, 13][..]),
        // An open block must be closed, whether reasoning is required or not.
        ("assistant : <think>", true, &[5, 5, 5], &[13]),
        ("assistant : <think>", false, &[5, 5, 5], &[13]),
        ("assistant : <think> </think>", false, &[5, 5, 5], &[]),
        ("assistant : <think> </think>", false, &[5, 13, 5], &[]),
    ] {
        let sampler = after(end);
        let lease = lease(likelihood, &["a b", "c"], after_thinking);
        let questions = lease.tasks.iter().map(|task| {
            let rendered = sampler.prompt(&task.messages, String::new).unwrap();
            let start = sampler.thinking_start(&rendered, &task.messages, String::new).unwrap();
            let choices = task.choices.as_ref().unwrap();
            sampler.question(choices, (&prompt, start), Some(&self::completion(completion)), String::new)
        });
        for question in questions {
            let Question { prefix, continuations: found } = question.unwrap();
            assert_eq!(prefix, [&prompt[..], head].concat(), "{end}");
            assert_eq!(found, continuations);
        }
    }
}

#[test]
fn scores_are_part_of_the_results_of_a_lease() {
    let likelihood = v1::Likelihood::default();
    let lease = lease(likelihood, &["a", "b c"], true);
    let outcome = loaded(1).sample(&lease, &|| false).unwrap().unwrap();
    for result in &outcome.results {
        assert_eq!(result.choice_logprobs.len(), result.completions.len());
        assert!(result.choice_logprobs.iter().all(|scores| scores.len() == 2));
    }
    assert_eq!(loaded(1).sample(&lease, &|| false).unwrap().unwrap().results, outcome.results);
}

#[test]
fn passes_are_cut_by_tokens_and_by_number_of_choices() {
    let question = |prompt: usize, choices: usize| Question {
        prefix: vec![1; prompt],
        continuations: vec![vec![1, 2]; choices],
    };
    assert_eq!(of_one_pass(&[question(9, 3), question(5, 3), question(5, 2)]), 2);
    assert_eq!(of_one_pass(&[question(4000, 3), question(4000, 3), question(4000, 3)]), 2);
    assert_eq!(of_one_pass(&[question(TOKENS_A_PASS + 1, 3)]), 1);
}
