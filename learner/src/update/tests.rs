use std::net::TcpListener;
use std::time::Duration;

use podium_grpo::options::LossType;
use podium_model::LoadOptions;

use super::*;
use crate::checkpoint::Checkpoints;
use crate::collective::Alone;
use crate::collective::tcp::{Hello, Tcp};
use crate::testing::{VOCABULARY, config, run_file, step, timeless};

const STEPS: u64 = 4;

fn updater(file: &RunFile) -> Updater {
    Updater::new(Policy::random(&config(), 5, LoadOptions::default()).unwrap(), file)
}

/// The part of a step that a rank of several gets.
fn part(whole: &Share, rank: u32, world_size: u32) -> Share {
    let own = whole.groups.iter().filter(|group| group.id.index % world_size == rank);
    Share { groups: own.cloned().collect(), ..whole.clone() }
}

fn train(updater: &mut Updater, steps: std::ops::Range<u64>) -> Vec<Metrics> {
    steps.map(|number| updater.update(&step(number), &mut Alone).unwrap()).collect()
}

/// All numbers of the state, weights first.
fn numbers(updater: &Updater) -> Vec<f32> {
    updater
        .state()
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
                (found - expected).abs() <= 1e-5 * (1e-3 + expected.abs()),
                "{name}: {found}, {expected}"
            );
        }
    }
}

#[test]
fn cuts_into_micro_batches_change_nothing() {
    for loss_type in [LossType::Grpo, LossType::Dapo] {
        for beta in ["grpo.beta=0.0", "grpo.beta=0.1"] {
            let run = |cut: &str| {
                let mut file = run_file(&[cut, beta]);
                file.grpo.loss_type = loss_type;
                let mut updater = updater(&file);
                let metrics = train(&mut updater, 0..2);
                (updater, metrics)
            };
            let (whole, metrics) = run("learner.groups_per_micro_batch=8");
            for cut in ["learner.groups_per_micro_batch=1", "learner.groups_per_micro_batch=2"] {
                let (updater, cut_metrics) = run(cut);
                let distance = distance(&updater, &whole);
                assert!(distance < 1e-6, "{loss_type:?} {beta} {cut}: {distance}");
                assert_close(&cut_metrics, &metrics);
            }
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
    let metrics = updater.update(&share, &mut Alone).unwrap();
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
fn resuming_is_exact_to_the_bit() {
    let file = run_file(&[]);
    let mut straight = updater(&file);
    let metrics = train(&mut straight, 0..STEPS);

    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path(), &file.hash(), 0).unwrap();
    let mut first = updater(&file);
    let before = train(&mut first, 0..2);
    checkpoints.write(first.next_step(), &before[1], &first.state()).unwrap();
    drop(first);

    let mut second = updater(&file);
    let checkpoint = checkpoints.latest().unwrap().unwrap();
    assert_eq!(checkpoint.metrics, before[1]);
    checkpoint.restore(second.state()).unwrap();
    second.restored(checkpoint.next_step);
    let after = train(&mut second, 2..STEPS);
    assert!(numbers(&second) == numbers(&straight));
    assert_eq!(timeless(&after), timeless(&metrics[2..]));
}

/// Trains with several ranks over tcp; what each rank ends with.
fn train_ranks(world_size: u32, file: &RunFile) -> Vec<(Updater, Vec<Metrics>)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let deadline = Duration::from_secs(30);
    let run = |rank| {
        let hello = Hello { run_hash: file.hash(), generation: 1, rank, world_size };
        let mut collective = match rank {
            0 => Tcp::gather(&listener, &hello, deadline).unwrap(),
            _ => Tcp::connect(&address, &hello, deadline).unwrap(),
        };
        let mut updater = updater(file);
        let steps = (0..STEPS).map(|number| part(&step(number), rank, world_size));
        let metrics = steps.map(|share| updater.update(&share, &mut collective).unwrap()).collect();
        (updater, metrics)
    };
    std::thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = (1..world_size).map(|rank| scope.spawn(move || run(rank))).collect();
        std::iter::once(run(0)).chain(others.into_iter().map(|other| other.join().unwrap())).collect()
    })
}

#[test]
fn ranks_change_nothing() {
    let file = run_file(&[]);
    let mut alone = updater(&file);
    let metrics = train(&mut alone, 0..STEPS);
    let first = train_ranks(2, &file);
    for (updater, rank_metrics) in &first {
        let distance = distance(updater, &alone);
        assert!(distance < 1e-6, "{distance}");
        assert_close(rank_metrics, &metrics);
        assert!(numbers(updater) == numbers(&first[0].0), "all ranks end with the same bits");
    }
    assert!(numbers(&train_ranks(2, &file)[0].0) == numbers(&first[0].0), "and so does every repetition");
    // More ranks than groups: some have nothing to do.
    for (updater, _) in train_ranks(6, &file) {
        assert!(distance(&updater, &alone) < 1e-6);
    }
}

#[test]
fn what_does_not_belong_changes_nothing() {
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
