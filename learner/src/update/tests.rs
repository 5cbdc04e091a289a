use std::time::Duration;

use podium_config::RunFile;
use podium_grpo::group::Allowed;
use podium_grpo::{Group, RankCredit, Step};
use podium_model::{Entropy, LoadOptions, Packed, Policy};
use tch::Tensor;

use super::micro_batch::{packed, tokens};
use super::*;
use crate::checkpoint::Checkpoints;
use crate::collective::Alone;
use crate::collective::tcp::Tcp;
use crate::testing::{VOCABULARY, config, part, run_file, stars, step, timeless};

const STEPS: u64 = 4;

pub(super) fn updater(file: &RunFile) -> Updater {
    Updater::new(Policy::random(&config(), 5, LoadOptions::default()).unwrap(), file)
}

fn train(updater: &mut Updater, steps: std::ops::Range<u64>) -> Vec<Metrics> {
    steps.map(|number| of_step(&updater.update(&step(number), &mut Alone).unwrap())).collect()
}

/// Runs with every option whose result could depend on the cut of a step.
const RUNS: [&[&str]; 8] = [
    &["grpo.beta=0.0"],
    &["grpo.loss_type=grpo", "grpo.scale_rewards=batch"],
    &["grpo.loss_type=bnpo", "grpo.mask_truncated_completions=true", "grpo.num_iterations=2"],
    &["grpo.loss_type=dr_grpo", "grpo.importance_sampling_level=sequence", "grpo.delta=1.5"],
    &[
        "grpo.loss_type=luspo",
        "grpo.entropy_coef=0.01",
        "grpo.importance_sampling_correction=sequence_truncate",
    ],
    &["grpo.loss_type=cispo", "grpo.num_iterations=2", "grpo.importance_sampling_correction=token_mask"],
    &["grpo.loss_type=sapo", "grpo.sync_ref_model=true", "grpo.ref_model_sync_steps=1"],
    &["grpo.credit=rank", "grpo.importance_sampling_level=rank", "grpo.mask_truncated_completions=true"],
];

/// All numbers of the state, weights first.
pub(super) fn numbers(updater: &Updater) -> Vec<f32> {
    updater
        .state(&mut Alone)
        .unwrap()
        .iter()
        .flat_map(|(_, tensor)| Vec::<f32>::try_from(tensor.reshape([-1])).unwrap())
        .collect()
}

/// ‖a − b‖ / ‖b‖ over the weights.
fn distance(a: &Updater, b: &Updater) -> f64 {
    let flat = |updater: &Updater| {
        let weights: Vec<Tensor> =
            updater.policy().parameters().iter().map(|(_, weight)| weight.detach().reshape([-1])).collect();
        Tensor::cat(&weights, 0).to_kind(tch::Kind::Double)
    };
    let (a, b) = (flat(a), flat(b));
    (&a - &b).norm().double_value(&[]) / b.norm().double_value(&[])
}

fn assert_close(found: &[Metrics], expected: &[Metrics]) {
    for (found, expected) in timeless(found).iter().zip(timeless(expected)) {
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, expected) in expected {
            let found = found[&name];
            assert!(
                // Advantages that cancel leave a loss near 0.
                (found - expected).abs() <= 1e-5 * (1e-2 + expected.abs()),
                "{name}: {found}, {expected}"
            );
        }
    }
}

#[test]
fn cuts_into_micro_batches_change_nothing() {
    for changes in RUNS {
        let run = |cut: &str| {
            let mut updater = updater(&run_file(&[changes, &[cut]].concat()));
            let metrics = train(&mut updater, 0..2);
            (updater, metrics)
        };
        let (whole, metrics) = run("learner.groups_per_micro_batch=8");
        for cut in ["learner.groups_per_micro_batch=1", "learner.groups_per_micro_batch=2"] {
            let (updater, cut_metrics) = run(cut);
            let distance = distance(&updater, &whole);
            assert!(distance < 1e-6, "{changes:?} {cut}: {distance}");
            assert_close(&cut_metrics, &metrics);
        }
    }
}

#[test]
fn the_policy_moves_towards_the_better_completions() {
    let mut updater = updater(&run_file(&["grpo.beta=0.0"]));
    let share = step(0);
    let logprob = |updater: &Updater, completion: usize| {
        let packed = Packed::new(&[tokens(&share.groups[0])]).unwrap();
        let scores = updater.policy().score(&packed, 1.0, Entropy::Skipped).unwrap();
        let lengths = packed.completion_lengths();
        let start = lengths[..completion].iter().sum::<usize>() as i64;
        scores.logprobs.narrow(0, start, lengths[completion] as i64).mean(tch::Kind::Double).double_value(&[])
    };
    let before = [0, 1].map(|completion| logprob(&updater, completion));
    let metrics = of_step(&updater.update(&share, &mut Alone).unwrap());
    assert!(logprob(&updater, 1) > before[1], "the best completion becomes more probable");
    assert!(logprob(&updater, 0) < before[0], "the worst one less");
    assert!(!metrics.contains_key("kl"));
    assert!((metrics["frac_reward_zero_std"] - 0.2).abs() < 1e-12);
    assert!((metrics["entropy"] - f64::from(VOCABULARY).ln()).abs() < 1.0);
    assert!(
        metrics["sampling/sampling_logp_difference/max"] >= metrics["sampling/sampling_logp_difference/mean"]
    );
}

#[test]
fn an_item_is_credited_apart_from_its_completion() {
    let mut share = step(0);
    share.groups.truncate(1);
    share.step_rewards.truncate(1);
    share.tokens_in_step = 9;
    // All completions earn the same; of the second item's tokens, those of the first completion have the higher
    // credit.
    let group = &mut share.groups[0];
    group.rewards = vec![Some(1.0); 3];
    // Ratios of 1, so that none is clipped.
    group.completions.iter_mut().for_each(|completion| completion.logprobs.clear());
    let credit = |tokens, reward| RankCredit { tokens, reward };
    group.rank_credits =
        vec![vec![credit(0..1, 0.0), credit(1..3, 1.0)], vec![], vec![credit(0..1, 0.0), credit(2..5, 0.0)]];
    share.step_rewards[0] = (&*group).into();
    let logprobs = |updater: &Updater| {
        let packed = Packed::new(&[tokens(&share.groups[0])]).unwrap();
        let scores = updater.policy().score(&packed, 1.0, Entropy::Skipped).unwrap();
        Vec::<f32>::try_from(scores.logprobs).unwrap()
    };
    let rank = ["grpo.beta=0.0", "grpo.credit=rank", "learner.learning_rate=0.0001"];
    for level in ["token", "rank"] {
        let level = format!("grpo.importance_sampling_level={level}");
        let mut updater = updater(&run_file(&[&rank[..], &[&level]].concat()));
        let before = logprobs(&updater);
        updater.update(&share, &mut Alone).unwrap();
        let after = logprobs(&updater);
        let change = |tokens: std::ops::Range<usize>| -> f32 {
            tokens.map(|token| after[token] - before[token]).sum()
        };
        assert!(change(1..3) > 0.0 && change(6..9) < 0.0);
    }
    // Without credit by rank nothing moves.
    let mut updater = updater(&run_file(&["grpo.beta=0.0"]));
    let metrics = updater.update(&share, &mut Alone).unwrap();
    assert!(metrics[0]["grad_norm"].abs() < f64::EPSILON);
}

#[test]
fn later_passes_go_by_the_first_ones_log_probabilities() {
    let file =
        |changes: &[&str]| run_file(&[&["grpo.beta=0.0", "learner.learning_rate=0.01"], changes].concat());
    let mut twice = updater(&file(&["grpo.num_iterations=2"]));
    let passes = twice.update(&step(0), &mut Alone).unwrap();
    assert_eq!((passes.len(), twice.next_step()), (2, Step(1)));
    assert!(passes[1]["clip_ratio/region_mean"] > passes[0]["clip_ratio/region_mean"]);
    assert!(!passes[1].contains_key("sampling/sampling_logp_difference/mean"));
    let whole = of_step(&passes);
    assert!((whole["loss"] - f64::midpoint(passes[0]["loss"], passes[1]["loss"])).abs() < 1e-12);
    assert!(whole["learner_seconds"] > passes[0]["learner_seconds"]);

    // Without behaviour log-probabilities the first pass has ratios of 1.
    let mut unknown = step(0);
    for completion in unknown.groups.iter_mut().flat_map(|group| &mut group.completions) {
        completion.logprobs.clear();
    }
    let mut updater = updater(&file(&["grpo.num_iterations=2", "grpo.epsilon=0.0"]));
    let passes = updater.update(&unknown, &mut Alone).unwrap();
    assert!(passes[0]["clip_ratio/region_mean"].abs() < f64::EPSILON);
    assert!(passes[1]["clip_ratio/region_mean"] > 0.0);
    assert!(!passes[0].contains_key("sampling/sampling_logp_difference/mean"));
}

#[test]
fn step_sizes_follow_the_passes() {
    let changes = ["run.steps=4", "grpo.num_iterations=2", "learner.lr_scheduler_type=linear"];
    let mut updater = updater(&run_file(&changes));
    updater.update(&step(0), &mut Alone).unwrap();
    let passes = updater.update(&step(1), &mut Alone).unwrap();
    let rates: Vec<f64> = passes.iter().map(|pass| pass["learning_rate"]).collect();
    assert!((rates[0] - 0.001 * 6.0 / 8.0).abs() < 1e-12 && (rates[1] - 0.001 * 5.0 / 8.0).abs() < 1e-12);
}

#[test]
fn a_reference_that_follows_closes_the_distance() {
    let follows =
        ["grpo.sync_ref_model=true", "grpo.ref_model_mixup_alpha=1.0", "learner.learning_rate=0.01"];
    let kl = |every: &str| {
        let mut updater = updater(&run_file(&[&follows[..], &[every]].concat()));
        train(&mut updater, 0..3)[2]["kl"]
    };
    let (kept, moved) = (kl("grpo.ref_model_sync_steps=9"), kl("grpo.ref_model_sync_steps=2"));
    assert!(kept > 1e-4, "{kept}");
    assert!(moved.abs() < 1e-6, "{moved}");
}

#[test]
fn restricted_tokens_are_scored_as_they_were_sampled() {
    let file = run_file(&["rollout.temperature=0.7"]);
    let mut share = step(0);
    for completion in share.groups.iter_mut().flat_map(|group| &mut group.completions) {
        let near = |id: u32| (id.saturating_sub(id % 4)..VOCABULARY.min(id + 3)).collect();
        completion.allowed = (0..)
            .zip(&completion.token_ids)
            .filter(|(position, _)| position % 3 != 0)
            .map(|(position, id)| Allowed { position, token_ids: near(*id) })
            .collect();
    }
    let groups: Vec<&Group> = share.groups.iter().collect();
    let scores = updater(&file).policy().score(&packed(&groups).unwrap(), 0.7, Entropy::Skipped).unwrap();
    let mut logprobs = Vec::<f32>::try_from(scores.logprobs).unwrap().into_iter();
    for completion in share.groups.iter_mut().flat_map(|group| &mut group.completions) {
        completion.logprobs = logprobs.by_ref().take(completion.len()).collect();
    }
    let update = |cut: &str| {
        let mut updater = updater(&run_file(&["rollout.temperature=0.7", cut]));
        let mut metrics = updater.update(&share, &mut Alone).unwrap().remove(0);
        assert!(metrics["grad_norm"] > 0.0);
        // These consist of rounding errors, which differ.
        for small in ["kl", "sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max"]
        {
            assert!(metrics.remove(small).unwrap() < 1e-5, "{small}");
        }
        (updater, vec![metrics])
    };
    let (whole, metrics) = update("learner.groups_per_micro_batch=8");
    let (cut, cut_metrics) = update("learner.groups_per_micro_batch=2");
    assert!(distance(&cut, &whole) < 1e-6);
    assert_close(&cut_metrics, &metrics);
    for completion in share.groups.iter_mut().flat_map(|group| &mut group.completions) {
        completion.allowed.clear();
    }
    let unrestricted = updater(&file).update(&share, &mut Alone).unwrap();
    assert!(unrestricted[0]["sampling/sampling_logp_difference/max"] > 0.1, "the sets make a difference");
}

#[test]
fn resuming_is_exact_to_the_bit() {
    for changes in RUNS {
        resumes_exactly(&run_file(changes));
    }
}

fn resumes_exactly(file: &RunFile) {
    let mut straight = updater(file);
    let metrics = train(&mut straight, 0..STEPS);

    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path(), &file.hash(), 0).unwrap();
    let mut first = updater(file);
    let before = train(&mut first, 0..2);
    checkpoints.write(first.next_step(), &before[1], &first.state(&mut Alone).unwrap()).unwrap();
    drop(first);

    let mut second = updater(file);
    let checkpoint = checkpoints.latest().unwrap().unwrap();
    assert_eq!(checkpoint.metrics, before[1]);
    let saved = checkpoint.load(second.shapes()).unwrap();
    second.join(checkpoint.next_step, Some(&saved), &mut Alone).unwrap();
    let after = train(&mut second, 2..STEPS);
    assert!(numbers(&second) == numbers(&straight));
    assert_eq!(timeless(&after), timeless(&metrics[2..]));
}

/// Trains with several ranks over TCP; returns each rank's final state.
fn train_ranks(world_size: u32, file: &RunFile) -> Vec<(Updater, Vec<Metrics>)> {
    stars(world_size, Duration::from_secs(30), |star| {
        let mut collective = Tcp::new(star);
        let mut updater = updater(file);
        let rank = collective.rank();
        let steps = (0..STEPS).map(|number| part(&step(number), rank, world_size));
        let metrics = steps.map(|share| of_step(&updater.update(&share, &mut collective).unwrap())).collect();
        (updater, metrics)
    })
}

#[test]
fn ranks_change_nothing() {
    for changes in RUNS {
        let file = run_file(changes);
        let mut alone = updater(&file);
        let metrics = train(&mut alone, 0..STEPS);
        let first = train_ranks(2, &file);
        for (updater, rank_metrics) in &first {
            let distance = distance(updater, &alone);
            assert!(distance < 1e-6, "{changes:?}: {distance}");
            assert_close(rank_metrics, &metrics);
            assert!(numbers(updater) == numbers(&first[0].0), "all ranks end with the same bits");
        }
    }
    let file = run_file(&[]);
    let mut alone = updater(&file);
    train(&mut alone, 0..STEPS);
    let first = numbers(&train_ranks(2, &file)[0].0);
    assert!(numbers(&train_ranks(2, &file)[0].0) == first, "every repetition ends with the same bits");
    // More ranks than groups: some ranks have no groups.
    for (updater, _) in train_ranks(6, &file) {
        assert!(distance(&updater, &alone) < 1e-6);
    }
}

#[test]
fn an_inconsistent_share_changes_nothing() {
    let mut updater = updater(&run_file(&[]));
    let before = numbers(&updater);
    assert!(matches!(updater.update(&step(3), &mut Alone), Err(Error::Step { found: 3, expected: 0 })));
    let mut torn = step(0);
    torn.step_rewards.pop();
    assert!(matches!(updater.update(&torn, &mut Alone), Err(Error::Share { step: 0, .. })));
    let mut foreign = step(0);
    foreign.groups[0].prompt_ids[0] = VOCABULARY;
    assert!(matches!(updater.update(&foreign, &mut Alone), Err(Error::Batch { step: 0, .. })));
    assert!(numbers(&updater) == before);
    // A failed attempt leaves no gradient behind.
    let expected = train(&mut self::updater(&run_file(&[])), 0..1);
    assert_eq!(timeless(&train(&mut updater, 0..1)), timeless(&expected));
}

#[test]
fn exhausted_memory_reduces_the_micro_batch() {
    let expected = train(&mut updater(&run_file(&["learner.groups_per_micro_batch=2"])), 0..2);
    let mut cramped = updater(&run_file(&["learner.groups_per_micro_batch=8"]));
    crate::memory::injected::room(2);
    let found = train(&mut cramped, 0..1);
    // A larger size is not tried again.
    crate::memory::injected::room(5);
    let found = [found, train(&mut cramped, 1..2)].concat();
    assert_eq!(timeless(&found), timeless(&expected));

    let before = numbers(&cramped);
    crate::memory::injected::room(0);
    let error = cramped.update(&step(2), &mut Alone).unwrap_err();
    assert!(matches!(error, Error::Memory { step: 2, pass: 0, groups: 1, .. }), "{error}");
    assert!(numbers(&cramped) == before, "the step was not taken");
    crate::memory::injected::room(usize::MAX);
    cramped.update(&step(2), &mut Alone).unwrap();
}

#[test]
fn an_optimizer_that_does_not_fit_is_an_error_with_the_settings_to_change() {
    let mut updater = updater(&run_file(&[]));
    crate::memory::injected::optimizer_fits(false);
    let error = updater.update(&step(0), &mut Alone).unwrap_err();
    crate::memory::injected::optimizer_fits(true);
    assert!(matches!(error, Error::OptimizerMemory { step: 0, .. }), "{error}");
    assert!(error.to_string().contains("learner.zero_stage = 1"), "{error}");
}
