//! Training sequences cut into windows, and batches of padded windows.

use podium_grpo::rng::Stream;
use tch::Tensor;

use crate::interactions::{Sequence, other_item};

/// Target of a padded position.
pub(super) const NO_TARGET: i64 = -100;

/// Consecutive items of a sequence whose successors are targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Position of the sequence in the training part.
    sequence: usize,
    begin: usize,
    end: usize,
}

impl Window {
    /// Returns the number of targets.
    pub(super) fn targets(&self) -> usize {
        self.end - self.begin
    }
}

/// Cuts sequences into windows of at most `length` items, so that each transition is in one window. Where a sequence is
/// longer than one window, the first cut is random.
pub(super) fn cut(sequences: &[Sequence], length: usize, stream: &mut Stream) -> Vec<Window> {
    let mut windows = Vec::new();
    for (sequence, Sequence { items, .. }) in sequences.iter().enumerate() {
        let inputs = items.len().saturating_sub(1);
        if inputs == 0 {
            continue;
        }
        let mut begin = 0;
        let mut end = if inputs > length { 1 + stream.below(length as u64) as usize } else { inputs };
        while begin < inputs {
            windows.push(Window { sequence, begin, end });
            (begin, end) = (end, (end + length).min(inputs));
        }
    }
    windows
}

/// Padded windows as tensors.
#[derive(Debug)]
pub(super) struct Batch {
    /// `[windows, length]`; padding follows the items.
    pub(super) items: Tensor,
    /// Positions with a target in the flattened `items`.
    pub(super) places: Tensor,
    /// The target of each of these positions.
    pub(super) targets: Tensor,
    /// A sampled item for each of these positions.
    pub(super) negatives: Option<Tensor>,
}

impl Batch {
    /// Creates the batch of `windows`. `sampled`: the sorted training items of each sequence, the number of items, and the
    /// random numbers that select negatives.
    pub(super) fn new(
        sequences: &[Sequence],
        windows: &[Window],
        sampled: Option<(&Vec<Vec<i64>>, usize, &mut Stream)>,
    ) -> Self {
        let of = |window: &Window, offset: usize| {
            &sequences[window.sequence].items[window.begin + offset..window.end + offset]
        };
        let inputs: Vec<&[i64]> = windows.iter().map(|window| of(window, 0)).collect();
        let targets: Vec<i64> = windows.iter().flat_map(|window| of(window, 1)).copied().collect();
        let (items, length) = pad(&inputs);
        let places: Vec<i64> = (0..)
            .zip(&inputs)
            .flat_map(|(row, items)| (0..items.len() as i64).map(move |column| row * length + column))
            .collect();
        let negatives = sampled.map(|(taken, items, stream)| {
            let chosen: Vec<i64> = windows
                .iter()
                .flat_map(|window| std::iter::repeat_n(&taken[window.sequence], window.targets()))
                .map(|taken| other_item(items, taken, stream))
                .collect();
            Tensor::from_slice(&chosen)
        });
        Self { items, places: Tensor::from_slice(&places), targets: Tensor::from_slice(&targets), negatives }
    }
}

/// Returns sequences as rows, `[sequences, longest]`, and the length of the longest. Item 0 pads: no position before it
/// depends on it.
pub(super) fn pad(sequences: &[&[i64]]) -> (Tensor, i64) {
    let length = sequences.iter().map(|items| items.len()).max().unwrap_or(0);
    let padded: Vec<i64> = sequences
        .iter()
        .flat_map(|items| items.iter().copied().chain(std::iter::repeat_n(0, length - items.len())))
        .collect();
    let length = length as i64;
    (Tensor::from_slice(&padded).view([sequences.len() as i64, length]), length)
}

#[cfg(test)]
mod tests {
    use podium_recsys::UserId;

    use super::*;

    fn sequences() -> Vec<Sequence> {
        [1, 2, 5, 11]
            .map(|length| Sequence { user: UserId(length), items: (0..length as i64).collect() })
            .into()
    }

    #[test]
    fn each_transition_is_in_one_window() {
        for seed in 0..20 {
            let sequences = sequences();
            let windows = cut(&sequences, 4, &mut Stream::new(seed, "test", &[]));
            let mut transitions = Vec::new();
            for window in &windows {
                assert!((1..=4).contains(&window.targets()), "{window:?}");
                transitions.extend((window.begin..window.end).map(|item| (window.sequence, item)));
            }
            transitions.sort_unstable();
            let expected: Vec<(usize, usize)> = (0..sequences.len())
                .flat_map(|sequence| {
                    (0..sequences[sequence].items.len() - 1).map(move |item| (sequence, item))
                })
                .collect();
            assert_eq!(transitions, expected);
        }
    }

    #[test]
    fn a_batch_has_the_next_item_as_target_and_negatives_outside_the_sequence() {
        let sequences = sequences();
        let windows = [Window { sequence: 2, begin: 1, end: 3 }, Window { sequence: 1, begin: 0, end: 1 }];
        let taken: Vec<Vec<i64>> = sequences.iter().map(|sequence| sequence.items.clone()).collect();
        let mut stream = Stream::new(0, "test", &[]);
        let batch = Batch::new(&sequences, &windows, Some((&taken, 6, &mut stream)));
        let numbers = |tensor: &Tensor| Vec::<i64>::try_from(tensor.view(-1)).unwrap();
        assert_eq!(numbers(&batch.items), [1, 2, 0, 0]);
        assert_eq!(numbers(&batch.places), [0, 1, 2]);
        assert_eq!(numbers(&batch.targets), [2, 3, 1]);
        let negatives = numbers(&batch.negatives.unwrap());
        assert_eq!(negatives[..2], [5, 5]);
        assert!((2..6).contains(&negatives[2]), "{negatives:?}");
    }
}
