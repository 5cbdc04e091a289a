//! Tests whether a ranker depends on the position of items in the prompt and on their popularity.
//!
//! Candidate lists are shuffled: a ranker that ignores the order ranks every position of the list first equally often,
//! for any items. The positions of first choices are tested against this. A ranker that uses only the items also makes
//! the same choice when the list is reversed.

use std::collections::BTreeSet;

use podium_grpo::rng::Stream;

use super::estimate::{Estimate, estimate_values};
use super::rank_of;
use crate::ids::ItemId;

/// Number of samples from the null distribution of positions.
const DRAWS: usize = 2_000;

/// The ranking of one candidate list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Rank of the target, from 1; `None` if it is not listed.
    pub rank: Option<usize>,
    /// The item ranked first; `None` without a ranking.
    pub first: Option<First>,
    /// The first items, best first; empty without a ranking.
    pub top: Vec<ItemId>,
}

/// The item ranked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    /// The item.
    pub item: ItemId,
    /// Its position in the candidate list, from 0.
    pub position: usize,
}

impl Placed {
    /// Creates it from a ranking of some of the `candidates`, of which the first `depth` items are stored; `None` stands
    /// for no ranking.
    pub fn of(ranking: Option<&[ItemId]>, target: ItemId, candidates: &[ItemId], depth: usize) -> Self {
        let ranking = ranking.unwrap_or_default();
        let first = ranking.first().and_then(|&item| {
            let position = candidates.iter().position(|&candidate| candidate == item)?;
            Some(First { item, position })
        });
        Self { rank: rank_of(target, ranking), first, top: ranking[..depth.min(ranking.len())].to_vec() }
    }
}

/// Positions of first choices in the candidate list.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstPositions {
    /// Fraction of first choices at each position, with intervals over users.
    pub shares: Vec<Estimate>,
    /// Total variation distance from equal fractions, 0 to 1.
    pub distance: f64,
    /// Mean distance under the null hypothesis that the position has no effect; above 0, since the number of choices is
    /// finite.
    pub distance_by_chance: f64,
    /// Probability of at least this distance under the null hypothesis.
    pub p_value: f64,
}

/// Analyses the positions of first choices, by candidate sample and user, with the same users in each sample; `None`
/// without choices. Users without a choice are excluded.
pub fn first_positions(draws: &[Vec<Option<usize>>], candidates: usize, seed: u64) -> Option<FirstPositions> {
    let users = draws.first().map_or(0, Vec::len);
    let mut counts = vec![0_u64; candidates];
    let mut shares: Vec<Vec<f64>> = vec![Vec::new(); candidates];
    for user in 0..users {
        let chosen: Vec<usize> =
            draws.iter().filter_map(|draw| draw[user]).filter(|&position| position < candidates).collect();
        if chosen.is_empty() {
            continue;
        }
        for share in &mut shares {
            share.push(0.0);
        }
        for &position in &chosen {
            counts[position] += 1;
            if let Some(share) = shares[position].last_mut() {
                *share += 1.0 / chosen.len() as f64;
            }
        }
    }
    let lists: u64 = counts.iter().sum();
    if lists == 0 {
        return None;
    }
    let found = distance(&counts, lists);
    let mut stream = Stream::new(seed, "places by chance", &[lists, candidates as u64]);
    let (mut extreme, mut sum) = (0, 0.0);
    for _ in 0..DRAWS {
        counts.fill(0);
        for _ in 0..lists {
            counts[stream.below(candidates as u64) as usize] += 1;
        }
        let distance = distance(&counts, lists);
        // Sums in another order round differently.
        extreme += usize::from(distance >= found - 1e-12);
        sum += distance;
    }
    Some(FirstPositions {
        shares: estimate_values(&shares, seed),
        distance: found,
        distance_by_chance: sum / DRAWS as f64,
        p_value: (extreme + 1) as f64 / (DRAWS + 1) as f64,
    })
}

/// Σ |share − even share| / 2.
fn distance(counts: &[u64], lists: u64) -> f64 {
    let even = 1.0 / counts.len() as f64;
    counts.iter().map(|&count| (count as f64 / lists as f64 - even).abs()).sum::<f64>() / 2.0
}

/// Returns the fraction of the distinct `offered` items that are among the `chosen` ones; 0 without offered items.
pub fn coverage(chosen: impl Iterator<Item = ItemId>, offered: impl Iterator<Item = ItemId>) -> f64 {
    let offered: BTreeSet<ItemId> = offered.collect();
    let chosen: BTreeSet<ItemId> = chosen.filter(|item| offered.contains(item)).collect();
    chosen.len() as f64 / offered.len().max(1) as f64
}

/// Returns each user's means of the measures over the candidate samples that have them; users without any are excluded.
/// Several measures share the same users.
pub fn user_means<T, const N: usize>(
    draws: &[Vec<T>],
    measure: impl Fn(&T) -> Option<[f64; N]>,
) -> [Vec<f64>; N] {
    let users = draws.first().map_or(0, Vec::len);
    let mut means = [const { Vec::new() }; N];
    for user in 0..users {
        let values: Vec<[f64; N]> = draws.iter().filter_map(|draw| measure(&draw[user])).collect();
        if !values.is_empty() {
            for (which, means) in means.iter_mut().enumerate() {
                means.push(values.iter().map(|value| value[which]).sum::<f64>() / values.len() as f64);
            }
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(lists: usize, mut position: impl FnMut(&mut Stream) -> usize) -> Vec<Vec<Option<usize>>> {
        let mut stream = Stream::new(7, "places", &[]);
        vec![(0..lists).map(|_| Some(position(&mut stream))).collect()]
    }

    #[test]
    fn first_choice_and_target_are_located() {
        let candidates = [5, 2, 9].map(ItemId);
        let placed = |ranking: Option<&[u64]>| {
            let ranking = ranking.map(|items| items.iter().copied().map(ItemId).collect::<Vec<_>>());
            Placed::of(ranking.as_deref(), ItemId(2), &candidates, 1)
        };
        let first = Some(First { item: ItemId(9), position: 2 });
        assert_eq!(placed(Some(&[9, 2])), Placed { rank: Some(2), first, top: vec![ItemId(9)] });
        assert_eq!(placed(Some(&[9])), Placed { rank: None, first, top: vec![ItemId(9)] });
        assert_eq!(placed(None), Placed { rank: None, first: None, top: vec![] });
    }

    #[test]
    fn a_position_preference_is_detected_and_even_choices_are_not() {
        let biased = drawn(400, |stream| if stream.uniform() < 0.25 { 0 } else { stream.below(10) as usize });
        let found = first_positions(&biased, 10, 1).unwrap();
        assert!(found.p_value < 1e-3 && found.distance > 0.15, "{found:?}");
        assert!(found.shares[0].low > 0.2 && found.shares[0].count == 400, "{found:?}");
        let even = first_positions(&drawn(400, |stream| stream.below(10) as usize), 10, 1).unwrap();
        assert!(even.p_value > 0.05, "{even:?}");
        assert!((even.distance - even.distance_by_chance).abs() < 0.03, "{even:?}");
        let sum: f64 = even.shares.iter().map(|share| share.mean).sum();
        assert!((sum - 1.0).abs() < 1e-9);
    }

    #[test]
    fn p_values_of_even_choices_are_uniform() {
        let small = (0..100)
            .filter(|&trial| {
                let mut stream = Stream::new(trial, "even", &[]);
                let draw = |stream: &mut Stream| (0..30).map(|_| Some(stream.below(5) as usize)).collect();
                let lists = vec![draw(&mut stream), draw(&mut stream)];
                first_positions(&lists, 5, trial).unwrap().p_value < 0.2
            })
            .count();
        // 20 ± 4 expected.
        assert!((8..=32).contains(&small), "{small} of 100 below 0.2");
    }

    #[test]
    fn users_without_a_choice_are_excluded() {
        let lists = vec![vec![Some(0), None, Some(1)], vec![Some(1), None, None]];
        let found = first_positions(&lists, 2, 0).unwrap();
        assert_eq!(found.shares[0].count, 2);
        assert!((found.shares[0].mean - 0.25).abs() < 1e-12, "{found:?}");
        assert_eq!(first_positions(&[vec![None, None]], 2, 0), None);
        assert_eq!(first_positions(&[], 2, 0), None);
        let [double, one] =
            user_means(&lists, |position| position.map(|position| [2.0 * position as f64, 1.0]));
        assert_eq!((double, one), (vec![1.0, 2.0], vec![1.0, 1.0]));
    }

    #[test]
    fn coverage_counts_each_item_once() {
        let items = |ids: &[u64]| ids.iter().copied().map(ItemId).collect::<Vec<_>>().into_iter();
        assert!((coverage(items(&[1, 1, 2, 9]), items(&[1, 2, 2, 3, 4])) - 0.5).abs() < 1e-12);
        assert!(coverage(items(&[1]), items(&[])).abs() < 1e-12);
    }
}
