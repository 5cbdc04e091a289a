//! The best evaluation so far, and how long nothing has been better.

/// Where a run of evaluations stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which of them is the best, from 0; of equals the earliest, since nothing was gained by going on.
    pub best: usize,
    /// The first one at which so many in a row had been no better than the best before them, if there was one.
    pub stop: Option<usize>,
}

/// Goes through the scores of evaluations in order. `patience` is how many in a row may be no better than the best
/// before them; 0 for any number. `None` without evaluations.
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
        // What comes after the end does not change it.
        assert_eq!(stop(&scores, 1), Some(2));
    }
}
