use std::collections::BTreeMap;
use std::path::Path;

use podium_grpo::FinishReason;
use podium_proto::v1;

use super::*;
use crate::lease::tests::{source, training};
use crate::tiny;

fn sampler() -> Sampler {
    Sampler::new("cpu", &Model::default(), &Rollout::default(), Variables::prompt(None, &BTreeMap::new()))
        .unwrap()
}

pub(super) fn loaded(seed: u64) -> Sampler {
    let mut sampler = sampler();
    sampler.load(source(0), &PolicyFolders::of_model(tiny::folder(seed).path())).unwrap();
    sampler
}

fn sample(sampler: &Sampler, message: v1::Lease) -> Outcome {
    sampler.sample(&Lease::try_from(message).unwrap(), &|| false).unwrap().unwrap()
}

fn ids(result: &SlotResult) -> Vec<&[u32]> {
    result.completions.iter().map(|completion| completion.token_ids.as_slice()).collect()
}

#[test]
fn a_lease_gives_the_same_bits_on_every_worker() {
    let lease = training(0, &["a b", "c d e f", "g"]);
    let (one, other) = (loaded(1), loaded(1));
    let outcome = sample(&one, lease.clone());
    sample(&one, training(0, &["f"]));
    for outcome_of_another in [sample(&one, lease.clone()), sample(&other, lease)] {
        assert_eq!(outcome_of_another.results, outcome.results);
    }
}

#[test]
fn exhausted_memory_splits_a_lease_and_later_ones() {
    let lease = || training(0, &["a b", "c d e f", "g"]);
    let expected = sample(&loaded(1), lease());
    let same = |outcome: &Outcome| {
        for (found, expected) in outcome.results.iter().zip(&expected.results) {
            assert_eq!(ids(found), ids(expected));
            for (found, expected) in found.completions.iter().zip(&expected.completions) {
                let pairs = found.logprobs.iter().zip(&expected.logprobs);
                assert!(pairs.map(|(one, other)| (one - other).abs()).all(|distance| distance < 1e-5));
            }
        }
        assert_eq!(outcome.results.len(), expected.results.len());
    };
    let sampler = loaded(1);
    // Two prompts with four completions each, one prompt, and half a prompt.
    for (room, part) in [(8, (1, 4)), (4, (1, 4)), (3, (1, 2)), (1, (1, 1))] {
        batch::injected::room(room);
        same(&sample(&sampler, lease()));
        assert_eq!((sampler.part.get().prompts, sampler.part.get().samples), part);
    }
    batch::injected::room(usize::MAX);
    same(&sample(&sampler, lease()));
    assert_eq!(sampler.part.get().samples, 1, "a size that did not fit is not tried again");
    batch::injected::room(0);
    let error = sampler.sample(&Lease::try_from(lease()).unwrap(), &|| false).unwrap_err();
    batch::injected::room(usize::MAX);
    assert!(error.to_string().starts_with("one completion does not fit"), "{error}");
}

#[test]
fn prompts_in_chunks_give_the_same_completions() {
    let lease = || training(0, &["a b", "c d e f", "g"]);
    let in_chunks = |prefill_tokens| {
        let rollout = Rollout { prefill_tokens, ..Rollout::default() };
        let mut sampler =
            Sampler::new("cpu", &Model::default(), &rollout, Variables::prompt(None, &BTreeMap::new()))
                .unwrap();
        sampler.load(source(0), &PolicyFolders::of_model(tiny::folder(1).path())).unwrap();
        sample(&sampler, lease())
    };
    let expected = sample(&loaded(1), lease());
    let logprobs = |outcome: &Outcome| -> Vec<f32> {
        let completions = outcome.results.iter().flat_map(|result| &result.completions);
        completions.flat_map(|completion| completion.logprobs.clone()).collect()
    };
    let mut differ = 0;
    // Two prompts at once, one prompt, and parts of a prompt.
    for prefill_tokens in [16, 8, 3] {
        let outcome = in_chunks(prefill_tokens);
        assert_eq!(
            in_chunks(prefill_tokens).results,
            outcome.results,
            "{prefill_tokens}: a lease repeats to the bit"
        );
        for (found, expected) in outcome.results.iter().zip(&expected.results) {
            assert_eq!(ids(found), ids(expected));
        }
        let (found, expected) = (logprobs(&outcome), logprobs(&expected));
        assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-5));
        differ += usize::from(found != expected);
    }
    assert!(differ > 0, "chunks round differently, so that the setting is in effect");
}

#[test]
fn completions_follow_the_lease() {
    let outcome = sample(&loaded(1), training(0, &["a b", "c d e f"]));
    assert_eq!(outcome.results.len(), 2);
    assert_eq!(outcome.results[0].prompt_ids, [2, 4, 5, 6, 3, 4], "user : a b assistant :");
    let completions: Vec<_> = outcome.results.iter().flat_map(|result| &result.completions).collect();
    assert_eq!(completions.len(), 8);
    for completion in &completions {
        let ended = completion.token_ids.last() == Some(&tiny::END);
        assert_eq!(ended, completion.finish_reason == FinishReason::Stop);
        assert!(ended || completion.len() == 12);
        assert_eq!(completion.logprobs.len(), completion.len());
        assert!(completion.sampled_logprobs.is_none());
        assert!(!completion.text.contains("<end>"), "special tokens are no text");
        let words = completion.text.split_whitespace().count();
        assert_eq!(words, completion.len() - usize::from(ended));
        assert_eq!(completion.text_ends.len(), completion.len());
        assert_eq!(completion.text_ends.last().copied(), Some(completion.text.len() as u32));
        let starts = |end: &u32| completion.text[*end as usize..].starts_with(' ');
        assert!(completion.text_ends.iter().all(|end| *end as usize == completion.text.len() || starts(end)));
    }
    let tokens: usize = completions.iter().map(|completion| completion.len()).sum();
    assert_eq!(outcome.cost.completion_tokens, tokens as u64);
    assert_eq!(outcome.cost.prompt_tokens, 6 + 8, "each prompt is computed once");
}

#[test]
fn equal_prompts_of_different_slots_have_different_random_numbers() {
    let outcome = sample(&loaded(1), training(0, &["a b", "a b"]));
    assert_ne!(ids(&outcome.results[0]), ids(&outcome.results[1]));
    let mut group = ids(&outcome.results[0]);
    group.dedup();
    assert!(group.len() > 1, "completions of a group differ");
    let mut reseeded = training(0, &["a b", "a b"]);
    reseeded.sampling.as_mut().unwrap().seed = 6;
    assert_ne!(sample(&loaded(1), reseeded).results, outcome.results);
}

#[test]
fn evaluations_of_two_versions_have_the_same_random_numbers() {
    let evaluation = |version| {
        let mut lease = training(version, &["a b", "c"]);
        for (index, task) in lease.tasks.iter_mut().enumerate() {
            let slot = v1::EvaluationSlot { policy_version: version, index: index as u32 };
            task.purpose = Some(v1::task::Purpose::Evaluation(slot));
        }
        lease
    };
    let folder = tiny::folder(1);
    let mut sampler = sampler();
    sampler.load(source(0), &PolicyFolders::of_model(folder.path())).unwrap();
    let first = sample(&sampler, evaluation(0));
    sampler.load(source(1), &PolicyFolders::of_model(folder.path())).unwrap();
    let second = sample(&sampler, evaluation(1));
    assert_eq!(second.source, source(1));
    for (first, second) in first.results.iter().zip(&second.results) {
        assert_eq!(first.completions, second.completions);
    }
}

#[test]
fn a_filter_adds_the_log_probabilities_it_sampled_from() {
    let mut lease = training(0, &["a b"]);
    lease.sampling.as_mut().unwrap().top_k = 2;
    let outcome = sample(&loaded(1), lease);
    for completion in &outcome.results[0].completions {
        let sampled = completion.sampled_logprobs.as_ref().unwrap();
        assert!(sampled.iter().zip(&completion.logprobs).all(|(sampled, full)| sampled >= full));
    }
}

#[test]
fn temperature_zero_is_greedy() {
    let mut lease = training(0, &["a b"]);
    lease.sampling.as_mut().unwrap().temperature = 0.0;
    let mut group =
        ids(&sample(&loaded(1), lease).results[0]).iter().map(|ids| ids.to_vec()).collect::<Vec<_>>();
    group.dedup();
    assert_eq!(group.len(), 1);
}

#[test]
fn a_new_version_replaces_the_previous_one() {
    let (first, second) = (tiny::folder(1), tiny::folder(2));
    let lease = |version| Lease::try_from(training(version, &["a b"])).unwrap();
    let mut sampler = sampler();
    assert!(matches!(sampler.sample(&lease(0), &|| false), Err(Error::Empty)));
    sampler.load(source(0), &PolicyFolders::of_model(first.path())).unwrap();
    assert!(matches!(sampler.sample(&lease(1), &|| false), Err(Error::Version { .. })));
    let of_first = sample(&sampler, training(0, &["a b"])).results;
    sampler.load(source(1), &PolicyFolders::of_model(second.path())).unwrap();
    sampler.load(source(0), &PolicyFolders::of_model(first.path())).unwrap();
    assert_eq!(sample(&sampler, training(0, &["a b"])).results, of_first);
    // The version is superseded: only its content changes.
    let superseded = v1::Lease { policy_content: vec![9; 32], ..training(0, &["a b"]) };
    let lease = Lease::try_from(superseded.clone()).unwrap();
    assert!(matches!(sampler.sample(&lease, &|| false), Err(Error::Version { .. })));
    sampler.load(lease.source, &PolicyFolders::of_model(second.path())).unwrap();
    assert_ne!(sample(&sampler, superseded).results, of_first);
    let nowhere = sampler.load(source(5), &PolicyFolders::of_model(Path::new("nowhere"))).unwrap_err();
    assert!(nowhere.to_string().contains("cannot load the policy in nowhere"));
    assert_eq!(sampler.source(), None, "partially assigned weights are not used");
}

#[test]
fn sampling_stops_on_request() {
    let lease = Lease::try_from(training(0, &["a b"])).unwrap();
    assert!(loaded(1).sample(&lease, &|| true).unwrap().is_none());
}

/// A lease whose answers list two of three items.
fn constrained(items: &[&str]) -> v1::Lease {
    let mut lease = training(0, &["a b", "c d e f"]);
    let sampling = lease.sampling.as_mut().unwrap();
    (sampling.constrain_answers, sampling.max_new_tokens) = (true, 40);
    for task in &mut lease.tasks {
        let items = items.iter().map(|item| (*item).to_owned()).collect();
        task.choices = Some(v1::Choices { items, count: 2, lines: false, after_thinking: false });
    }
    lease
}

#[test]
fn constrained_answers_list_choices_and_record_the_allowed_tokens() {
    let sampler = loaded(1);
    let outcome = sample(&sampler, constrained(&["a b", "a c", "d"]));
    let answers = ["a b a c", "a b d", "a c a b", "a c d", "d a b", "d a c"];
    let completions: Vec<_> = outcome.results.iter().flat_map(|result| &result.completions).collect();
    let mut answered = 0;
    for completion in &completions {
        for allowed in &completion.allowed {
            let position = allowed.position as usize;
            assert!(allowed.token_ids.contains(&completion.token_ids[position]));
            let certain = completion.logprobs[position] == 0.0;
            assert!(allowed.token_ids.len() > 1 || certain, "one choice is certain");
        }
        // Reasoning may come first and may be unfinished.
        let (reasoning, answer) = completion.text.split_once("</think>").unwrap_or(("", &completion.text));
        if answer.starts_with("<think>") || completion.finish_reason == FinishReason::Length {
            continue;
        }
        answered += 1;
        assert!(answers.contains(&answer.trim()), "{answer:?}");
        assert_eq!(completion.allowed.last().unwrap().token_ids, [tiny::END]);
        // Between `<think>`, which is one of the allowed first tokens, and the list all tokens are allowed.
        let free = reasoning.split_whitespace().count();
        assert_eq!(completion.allowed.len(), completion.len() - free);
    }
    assert!(answered > 2);
    assert!(completions.iter().any(|completion| completion.text != completions[0].text));
    assert_eq!(sample(&loaded(1), constrained(&["a b", "a c", "d"])).results, outcome.results);
}

#[test]
fn constrained_answers_continue_the_think_block_of_the_prompt() {
    let answers = ["a b a c", "a b d", "a c a b", "a c d", "d a b", "d a c"];
    for (end, open) in [("assistant : <think>", true), ("assistant : <think> </think>", false)] {
        let folder = tiny::with_generation_prompt(1, end);
        let mut sampler = sampler();
        sampler.load(source(0), &PolicyFolders::of_model(folder.path())).unwrap();
        let outcome = sample(&sampler, constrained(&["a b", "a c", "d"]));
        let mut answered = 0;
        for completion in outcome.results.iter().flat_map(|result| &result.completions) {
            let (reasoning, answer) = match completion.text.split_once("</think>") {
                Some((reasoning, answer)) if open => (reasoning, answer),
                _ if open => continue,
                _ => ("", completion.text.as_str()),
            };
            if completion.finish_reason == FinishReason::Stop {
                answered += 1;
                assert!(answers.contains(&answer.trim()), "{end}: {:?}", completion.text);
            }
            let free = reasoning.split_whitespace().count() + usize::from(open);
            assert_eq!(completion.allowed.len(), completion.len() - free, "{end}: {:?}", completion.text);
        }
        assert!(answered > 2, "{end}: {answered} answers");
    }
}

#[test]
fn answers_without_a_tokenization_are_an_error() {
    let lease = |items: &[&str]| Lease::try_from(constrained(items)).unwrap();
    let error = |items: &[&str]| loaded(1).sample(&lease(items), &|| false).unwrap_err();
    let one = error(&["a", "y", "z"]);
    assert!(matches!(one, Error::Generate(generate::Error::NothingAllowed { .. })), "{one}");
}
