//! NDCG@10 over the whole catalogue.

use tch::{Kind, Tensor};

use crate::interactions::Case;
use crate::network::Scorer;

/// Cutoff of the metric.
const CUT: f64 = 10.0;
/// Number of cases that are scored at once.
pub(crate) const CHUNK: usize = 256;

/// Returns the mean NDCG@10 of the targets among all items that are not in the history. A target that is tied with `n`
/// others is ranked behind half of them.
pub(crate) fn ndcg(scorer: &dyn Scorer, cases: &[Case]) -> f64 {
    let total: f64 = cases.chunks(CHUNK).map(|chunk| sum(&scorer.scores(chunk), chunk)).sum();
    total / cases.len().max(1) as f64
}

/// Returns the sum of NDCG@10 over cases with these scores, `[cases, items]`.
fn sum(scores: &Tensor, cases: &[Case]) -> f64 {
    let targets: Vec<i64> = cases.iter().map(|case| case.target).collect();
    let own = scores.gather(1, &Tensor::from_slice(&targets).unsqueeze(1), false);
    let seen = seen(cases, scores.size()[1]);
    let above = scores.gt_tensor(&own).logical_and(&seen.logical_not());
    let level = scores.eq_tensor(&own).logical_and(&seen.logical_not());
    let count = |flags: Tensor| flags.sum_dim_intlist(1, false, Kind::Double);
    // The target itself is among those of its level.
    let rank: Tensor = count(above) + (count(level) + 1.0) / 2.0;
    // A score that is not a number is above nothing and level with nothing.
    let rank = rank.masked_fill(&own.isnan().squeeze_dim(1), f64::INFINITY);
    let rank: Vec<f64> = Vec::try_from(rank).expect("a vector of float64");
    rank.iter().filter(|rank| **rank <= CUT).map(|rank| (rank + 1.0).log2().recip()).sum()
}

/// Marks the items of each history, except the target, `[cases, items]`.
fn seen(cases: &[Case], items: i64) -> Tensor {
    let mut flags = vec![false; cases.len() * items as usize];
    for (case, row) in cases.iter().zip(flags.chunks_mut(items as usize)) {
        for &item in &case.history {
            row[item as usize] = true;
        }
        row[case.target as usize] = false;
    }
    Tensor::from_slice(&flags).view([cases.len() as i64, items])
}

#[cfg(test)]
mod tests {
    use podium_recsys::UserId;

    use super::*;

    struct Fixed(Vec<f32>);

    impl Scorer for Fixed {
        fn scores(&self, cases: &[Case]) -> Tensor {
            Tensor::from_slice(&self.0).unsqueeze(0).repeat([cases.len() as i64, 1])
        }
    }

    #[test]
    fn history_is_excluded_and_ties_count_half() {
        let case = |history: &[i64], target| Case { user: UserId(1), history: history.into(), target };
        let scorer = Fixed(vec![5.0, 4.0, 3.0, 3.0, 3.0]);
        let at = |rank: f64| (rank + 1.0).log2().recip();
        for (case, expected) in [
            (case(&[0], 1), at(1.0)),
            (case(&[4], 1), at(2.0)),
            // Behind two items, tied with two.
            (case(&[], 3), at(4.0)),
            // A target that is repeated remains a candidate.
            (case(&[0, 1], 0), at(1.0)),
        ] {
            assert!((ndcg(&scorer, std::slice::from_ref(&case)) - expected).abs() < 1e-12, "{case:?}");
        }
        let cases = [case(&[0], 1), case(&[4], 1)];
        assert!((ndcg(&scorer, &cases) - f64::midpoint(at(1.0), at(2.0))).abs() < 1e-12);
        let many = Fixed((0..20).map(|item| 20.0 - item as f32).collect());
        assert!(ndcg(&many, &[case(&[], 10)]).abs() < 1e-12, "rank 11");
        assert!(ndcg(&many, &[case(&[], 9)]) > 0.28);
        assert!(ndcg(&Fixed(vec![f32::NAN; 5]), &[case(&[0], 1)]).abs() < 1e-12, "without a number");
    }
}
