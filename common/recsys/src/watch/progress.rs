//! The best evaluation so far and early stopping.

/// Result of a sequence of evaluations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Index of the best evaluation, from 0; of equal ones the earliest.
    pub best: usize,
    /// Index of the first evaluation after `patience` consecutive ones without improvement, if any.
    pub stop: Option<usize>,
}

/// Evaluates scores in order. `patience` is the number of consecutive evaluations without improvement that stops the
/// run; 0 disables stopping. Returns `None` without evaluations.
pub fn progress(scores: &[f64], patience: u64) -> Option<Progress> {
    let (first, rest) = scores.split_first()?;
    let mut progress = Progress { best: 0, stop: None };
    let mut highest = *first;
    for (index, &score) in rest.iter().enumerate().map(|(index, score)| (index + 1, score)) {
        if score > highest {
            highest = score;
            progress.best = index;
        } else if patience > 0 && (index - progress.best) as u64 >= patience {
            progress.stop.get_or_insert(index);
        }
    }
    Some(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_earliest_of_equals() {
        assert_eq!(progress(&[], 2), None);
        assert_eq!(progress(&[0.5], 1), Some(Progress { best: 0, stop: None }));
        assert_eq!(progress(&[0.4, 0.5, 0.5, 0.3], 0), Some(Progress { best: 1, stop: None }));
    }

    #[test]
    fn patience_counts_evaluations_without_a_new_best() {
        let stop = |scores: &[f64], patience| progress(scores, patience).unwrap().stop;
        let scores = [0.4, 0.5, 0.5, 0.45, 0.6, 0.6, 0.6, 0.5];
        assert_eq!(stop(&scores, 3), Some(7));
        assert_eq!(stop(&scores[..7], 3), None);
        assert_eq!(stop(&scores, 2), Some(3));
        assert_eq!(stop(&scores, 0), None);
        // Later evaluations do not change the result.
        assert_eq!(stop(&scores, 1), Some(2));
    }
}
