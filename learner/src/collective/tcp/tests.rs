use std::time::{Duration, Instant};

use super::super::wire;
use super::*;
use crate::testing::stars;

const LONG: Duration = Duration::from_secs(30);

/// Runs `part` on every rank of a group and returns the results in the order of ranks.
fn group<T: Send>(size: u32, deadline: Duration, part: impl Fn(&mut Tcp) -> T + Sync) -> Vec<T> {
    stars(size, deadline, |star| part(&mut Tcp::new(star)))
}

#[test]
fn sums_copies_and_numbers_reach_every_rank() {
    let results = group(3, LONG, |collective| {
        let rank = collective.rank() as f32;
        let mut sum = Tensor::from_slice(&[1.0, rank, 1e-8 * (rank + 1.0)]);
        collective.all_reduce_sum(&mut sum).unwrap();
        let mut copy = Tensor::from_slice(&[rank + 5.0]);
        collective.broadcast(&mut copy).unwrap();
        collective.barrier().unwrap();
        let numbers = collective.all_gather(&[f64::from(rank), 0.5]).unwrap();
        let smallest = collective.min(10 - u64::from(collective.rank())).unwrap();
        (Vec::<f32>::try_from(sum).unwrap(), Vec::<f32>::try_from(copy).unwrap(), numbers, smallest)
    });
    let sum = vec![3.0, 3.0, (1e-8_f32 + 2e-8) + 3e-8];
    let numbers = vec![vec![0.0, 0.5], vec![1.0, 0.5], vec![2.0, 0.5]];
    for result in results {
        assert_eq!(result, (sum.clone(), vec![5.0], numbers.clone(), 8));
    }
}

#[test]
fn a_large_sum_is_the_same_bits_every_time() {
    let sum = || {
        group(2, LONG, |collective| {
            let numbers: Vec<f32> =
                (0..1_000_000).map(|n| ((n * 7 + collective.rank()) as f32).sin()).collect();
            let mut sum = Tensor::from_slice(&numbers);
            collective.all_reduce_sum(&mut sum).unwrap();
            bytes_of(&sum)
        })
    };
    let first = sum();
    assert_eq!(first[0], first[1]);
    assert_eq!(first, sum());
}

#[test]
fn every_rank_learns_which_rank_is_missing() {
    let results = group(3, Duration::from_millis(300), |collective| {
        collective.barrier().unwrap();
        if collective.rank() == 2 {
            // Alive and silent, until the other ranks have failed.
            let mut byte = [0];
            let _ = wire::read_all(&collective.star.peers[0], &mut byte, Instant::now() + LONG);
            return String::new();
        }
        collective.barrier().unwrap_err().to_string()
    });
    for message in &results[..2] {
        assert!(message.contains("rank 2 did not take part in all-gather 1 within 300 ms"), "{message}");
    }
}

#[test]
fn a_disconnected_rank_is_named_immediately() {
    let results = group(2, LONG, |collective| match collective.rank() {
        0 => collective.barrier().unwrap_err().to_string(),
        _ => String::new(),
    });
    assert!(results[0].contains("connection to rank 1 broke"), "{}", results[0]);
}

#[test]
fn ranks_at_different_operations_are_detected() {
    let results = group(2, LONG, |collective| match collective.rank() {
        0 => collective.all_gather(&[1.0]).unwrap_err().to_string(),
        _ => collective.all_gather(&[1.0, 2.0]).unwrap_err().to_string(),
    });
    assert!(
        results[0].contains("rank 1 is at all-gather 0 of 16 bytes, this rank at all-gather 0 of 8 bytes")
    );
    assert!(results[1].contains("rank 0 gave up"), "{}", results[1]);
}
