use std::time::Duration;

use podium_config::RunFile;
use podium_grpo::Step;
use podium_model::{LoadOptions, Policy};
use podium_torch_shim::track;

use super::*;
use crate::collective::Alone;
use crate::collective::tcp::Tcp;
use crate::testing::{config, part, run_file, stars, step};
use crate::update::Updater;

const STEPS: u64 = 4;

fn file(zero_stage: u32) -> RunFile {
    run_file(&[&format!("learner.zero_stage={zero_stage}"), "learner.weight_decay=0.1"])
}

fn updater(file: &RunFile) -> Updater {
    Updater::new(Policy::random(&config(), 5, LoadOptions::default()).unwrap(), file)
}

fn numbers(tensors: impl IntoIterator<Item = Tensor>) -> Vec<f32> {
    tensors.into_iter().flat_map(|tensor| Vec::<f32>::try_from(tensor.reshape([-1])).unwrap()).collect()
}

fn weights(updater: &Updater) -> Vec<f32> {
    numbers(updater.policy().trainable().iter().map(|(_, tensor)| tensor.detach()))
}

/// Trains some ranks on these steps, from `saved` on; returns each rank's weights, and rank 0's state.
fn train(
    world_size: u32,
    file: &RunFile,
    steps: Range<u64>,
    saved: Option<&[(String, Tensor)]>,
) -> (Vec<Vec<f32>>, Vec<(String, Tensor)>) {
    let copy = |state: &[(String, Tensor)]| -> Vec<(String, Tensor)> {
        state.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect()
    };
    // Tensors are not shared between threads: each rank gets its own.
    let saved = std::sync::Mutex::new(saved.map(copy));
    let ranks = stars(world_size, Duration::from_secs(30), |star| {
        let mut collective = Tcp::new(star);
        let mut updater = updater(file);
        let rank = collective.rank();
        let own = if rank == 0 { saved.lock().unwrap().take() } else { None };
        let own: Option<BTreeMap<_, _>> = own.map(|state| state.into_iter().collect());
        updater.join(Step(steps.start), own.as_ref(), &mut collective).unwrap();
        for number in steps.clone() {
            updater.update(&part(&step(number), rank, world_size), &mut collective).unwrap();
        }
        let state = updater.state(&mut collective).unwrap();
        (weights(&updater), copy(&state))
    });
    let (weights, mut states): (Vec<_>, Vec<_>) = ranks.into_iter().unzip();
    (weights, states.swap_remove(0))
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(x, y)| f64::from(*x) - f64::from(*y)));
    difference / norm(&mut b.iter().map(|x| f64::from(*x)))
}

#[test]
fn shards_give_the_weights_of_one_rank_and_the_same_bits_again() {
    let (alone, _) = train(1, &file(0), 0..STEPS, None);
    for world_size in [1, 2, 4, 6] {
        let (first, _) = train(world_size, &file(1), 0..STEPS, None);
        for weights in &first {
            assert!(distance(weights, &alone[0]) < 1e-6, "{world_size}: {}", distance(weights, &alone[0]));
            assert!(*weights == first[0], "all ranks end with the same bits");
        }
        assert!(train(world_size, &file(1), 0..STEPS, None).0 == first, "a repetition has the same bits");
    }
}

#[test]
fn a_checkpoint_is_loaded_by_any_number_of_ranks() {
    let (whole, _) = train(4, &file(1), 0..STEPS, None);
    let (_, saved) = train(4, &file(1), 0..2, None);
    let (_, replicated) = train(1, &file(0), 0..2, None);
    let names = |state: &[(String, Tensor)]| {
        let mut names: Vec<_> = state.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        names.sort();
        names
    };
    assert_eq!(names(&saved), names(&replicated));
    assert!(train(4, &file(1), 2..STEPS, Some(&saved)).0 == whole, "the state is complete, to the bit");
    for (world_size, stage) in [(1, 1), (2, 1), (3, 1), (1, 0), (2, 0)] {
        let (continued, _) = train(world_size, &file(stage), 2..STEPS, Some(&saved));
        assert!(distance(&continued[0], &whole[0]) < 1e-6, "{world_size} ranks, stage {stage}");
    }
    let (continued, _) = train(4, &file(1), 2..STEPS, Some(&replicated));
    assert!(distance(&continued[0], &whole[0]) < 1e-6);
}

#[test]
fn memory_falls_with_the_number_of_ranks() {
    let memory = |world_size: u32| {
        let ranks = stars(world_size, Duration::from_secs(30), |star| {
            let mut collective = Tcp::new(star);
            let sizes = [[300, 200], [7, 100], [1000, 30]];
            let parameter = |(index, size): (usize, [i64; 2])| {
                (index.to_string(), Tensor::ones(size, (Kind::Float, Device::Cpu)))
            };
            let parameters: Vec<_> = sizes.into_iter().enumerate().map(parameter).collect();
            let numbers: i64 = sizes.iter().map(|size| size[0] * size[1]).sum();
            let options = (&file(1).learner).into();
            let ((), tracked) = track(|| {
                let mut zero = Zero::new(&parameters, options);
                zero.join(None, &mut collective).unwrap();
                std::mem::forget(zero);
            })
            .unwrap();
            (tracked.remaining, numbers)
        });
        for (remaining, numbers) in ranks {
            let expected = 12 * numbers / i64::from(world_size);
            assert!((remaining - expected).abs() < expected / 20, "{world_size}: {remaining} of {expected}");
        }
    };
    for world_size in [1, 2, 4] {
        memory(world_size);
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let parameters = vec![("a".to_owned(), Tensor::ones([3, 2], (Kind::Float, Device::Cpu)))];
    let mut zero = Zero::new(&parameters, (&file(1).learner).into());
    let gradient = Tensor::full([3, 2], f64::NAN, (Kind::Float, Device::Cpu));
    assert!(matches!(zero.step(vec![gradient], 0.1, &mut Alone), Err(Error::Gradient(_))));
    assert_eq!(zero.steps(), 0);
    assert_eq!(numbers([parameters[0].1.shallow_clone()]), [1.0; 6]);
}
